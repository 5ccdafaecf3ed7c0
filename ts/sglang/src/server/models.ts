/** `/v1/models`: the one model that is served. Other names are refused only with `strictModel`. */
import { SglangError } from '../engine/errors.ts';
import type { Call, Route, ServerState } from './calls.ts';

export const modelRoutes: readonly Route[] = [
  {
    methods: ['get'],
    paths: ['/v1/models'],
    answer: (call) => call.res.json({ object: 'list', data: [modelEntry(call)] }),
  },
  { methods: ['get'], paths: ['/v1/models/*id'], answer: oneModel },
];

function modelEntry({ modelName, engine, startedAt }: ServerState) {
  const created = Math.floor(startedAt.getTime() / 1000);
  return {
    id: modelName,
    object: 'model',
    created,
    owned_by: 'sglang',
    root: engine.model.modelPath,
    max_model_len: engine.model.contextLength,
  };
}

function oneModel(call: Call): void {
  const { id } = call.req.params;
  const name = Array.isArray(id) ? id.join('/') : id;
  if (name !== call.modelName) throw unknownModel(name ?? '', call.modelName);
  call.res.json(modelEntry(call));
}

function unknownModel(name: string, served: string): SglangError {
  return new SglangError('model_not_found', `the model "${name}" is not served here; "${served}" is`, 'model');
}

export function checkModel({ options, modelName }: ServerState, asked: string | undefined): void {
  if (options.strictModel && asked !== undefined && asked !== modelName) throw unknownModel(asked, modelName);
}
