/** `/v1/score`: how likely each label is to come after a query and each of its items. */
import { scoresOf, scoringRequests } from '../engine/scoring.ts';
import type { ScoreRequest } from '../engine/types.ts';
import { allResults, submitAll } from './calls.ts';
import type { Call, Route } from './calls.ts';
import { boolean, either, needed, object, standingOf, string, tokenIds, withinVocabulary } from './fields.ts';
import { checkModel } from './models.ts';
import { commonFields, fieldNames, knownPrompt, promptsOf, texts, usageOfResults } from './openai.ts';

const body = object({
  ...commonFields,
  query: needed(either(string, tokenIds)),
  items: needed(texts),
  label_token_ids: needed(tokenIds),
  apply_softmax: boolean,
  item_first: boolean,
});

export const scoreRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/v1/score'], fieldName: fieldNames('items'), takesBody: true, answer: score },
];

async function score(call: Call): Promise<void> {
  const asked = body(call.body, '');
  checkModel(call, asked.model);
  const request = requestOf(call, asked);
  const results = await allResults(submitAll(call, scoringRequests(request), asked.rid));
  call.res.json({
    object: 'scoring',
    scores: results.map(([result]) => scoresOf(result!, request)),
    model: call.modelName,
    usage: usageOfResults(results),
  });
}

function requestOf(call: Call, asked: ReturnType<typeof body>): ScoreRequest {
  const { model } = call.engine;
  return {
    query: knownPrompt(model, asked.query, 'query'),
    items: promptsOf(call, asked.items, 'items'),
    labelTokenIds: withinVocabulary(asked.label_token_ids, model.vocabSize, 'label_token_ids'),
    applySoftmax: asked.apply_softmax,
    itemFirst: asked.item_first,
    ...standingOf(asked),
  };
}
