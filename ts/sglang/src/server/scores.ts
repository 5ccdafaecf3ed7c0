/** `/v1/score`: how likely each label is to come after a query and each of its items. */
import { scoresOf, scoringRequests } from '../engine/scoring.ts';
import type { ScoreRequest } from '../engine/types.ts';
import { allResults, submitAll } from './calls.ts';
import type { Call, Route } from './calls.ts';
import { boolean, either, integer, limit, needed, object, string, tokenIds, withinVocabulary } from './fields.ts';
import { checkModel } from './models.ts';
import { promptsOf, texts, usageOfResults } from './openai.ts';

const body = object({
  query: needed(either(string, tokenIds)),
  items: needed(texts),
  label_token_ids: needed(tokenIds),
  apply_softmax: boolean,
  item_first: boolean,
  model: string,
  rid: string,
  priority: integer(-limit, limit),
  cache_salt: string,
});

export const scoreRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/v1/score'], takesBody: true, answer: score },
];

async function score(call: Call): Promise<void> {
  const asked = body(call.body, '');
  checkModel(call, asked.model);
  const request = requestOf(call, asked);
  const requests = scoringRequests(request);
  const submissions = submitAll(
    call,
    requests,
    requests.map(() => asked.rid),
  );
  const results = await allResults(submissions);
  call.res.json({
    object: 'scoring',
    scores: results.map(([result]) => scoresOf(result!, request)),
    model: call.modelName,
    usage: usageOfResults(results),
  });
}

function requestOf(call: Call, asked: ReturnType<typeof body>): ScoreRequest {
  const known = (value: string | readonly number[], at: string) =>
    typeof value === 'string' ? value : withinVocabulary(value, call.engine.model.vocabSize, at);
  return {
    query: known(asked.query, 'query'),
    items: promptsOf(asked.items, 'items').map((item) => known(item, 'items')),
    labelTokenIds: withinVocabulary(asked.label_token_ids, call.engine.model.vocabSize, 'label_token_ids'),
    applySoftmax: asked.apply_softmax,
    itemFirst: asked.item_first,
    priority: asked.priority,
    cacheSalt: asked.cache_salt,
  };
}
