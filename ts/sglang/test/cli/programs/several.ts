/** Two programs, none of them the default one. */
import { fn } from '../../../src/index.ts';

export const first = fn((s) => s`first`);
export const second = fn((s) => s`second`);
