/** llama.cpp's own server with one cache for all of its slots. */
import { notes as common, start } from './llama-server.mjs';

export { install } from './llama-server.mjs';
export const name = 'llama-server-unified';
export const notes = ['--kv-unified', ...common];

/** @type {import('./peer.mjs').PeerModule['load']} */
export const load = (modelPath, options) => start(modelPath, options, ['--kv-unified']);
