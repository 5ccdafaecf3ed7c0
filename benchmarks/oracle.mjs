/**
 * An ideal prefix cache: a tree of single tokens that holds prompts and outputs, and knows all requests to come. Law: no
 * cache of the same size that serves the requests in this order computes fewer prompt tokens; when it is full, what goes
 * is what is wanted again last (Belady, 1966), and a token is never wanted before the ones it follows. What is being
 * served has its place too.
 *
 * @typedef {{ next: Map<number, Node>, wanted: number[], depth: number, held: boolean }} Node
 *   `wanted`: the requests still to be served, in order, that need not compute this token if it is held
 */

/**
 * Share of all prompt tokens that need not be computed. The last token of a prompt always is, for the first one out.
 * @param {{ prompt: number[], outputIds: number[] }[]} requests  in the order of their submission
 * @param {number} capacity  tokens that the cache holds
 */
export function oracleHitRate(requests, capacity) {
  const root = node(0);
  const paths = requests.map((request, i) => plant(root, request, i));
  const held = new Set();
  let [hits, total] = [0, 0];
  requests.forEach(({ prompt }, i) => {
    const reusable = paths[i].slice(0, prompt.length - 1);
    const missing = reusable.findIndex((token) => !token.held);
    hits += missing < 0 ? reusable.length : missing;
    total += prompt.length;
    for (const token of reusable) token.wanted.shift();
    for (const token of paths[i]) {
      token.held = true;
      held.add(token);
    }
    if (held.size > capacity) evict(held, new Set(paths[i]), held.size - capacity);
  });
  return hits / total;
}

/** @returns {Node} */
function node(depth) {
  return { next: new Map(), wanted: [], depth, held: false };
}

/** Adds a request's tokens to the tree; returns their nodes. */
function plant(root, { prompt, outputIds }, request) {
  let at = root;
  return [...prompt, ...outputIds].map((id, i) => {
    if (!at.next.has(id)) at.next.set(id, node(at.depth + 1));
    at = at.next.get(id);
    if (i < prompt.length - 1) at.wanted.push(request);
    return at;
  });
}

/** Drops `count` tokens, if there are so many that are not of the request being served. */
function evict(held, serving, count) {
  const when = ({ wanted }) => wanted[0] ?? Infinity;
  const later = (a, b) => (when(a) === when(b) ? b.depth - a.depth : when(b) - when(a));
  const free = [...held].filter((token) => !serving.has(token)).sort(later);
  for (const token of free.slice(0, count)) {
    token.held = false;
    held.delete(token);
  }
}
