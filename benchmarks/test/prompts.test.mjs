/** Prompts stay what they were, or records of different days could not be compared. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { distinctPrompts } from '../prompts.mjs';

test('the prompts of W4 have not changed', () => {
  const digest = createHash('sha256').update(distinctPrompts(32).join('\n')).digest('hex');
  assert.equal(digest.slice(0, 16), 'ec92945875af540d');
});

test('more prompts begin with the same ones', () => {
  assert.deepEqual(distinctPrompts(100).slice(0, 7), distinctPrompts(7));
});

test('no two prompts share more than a word at the start, nor a story', () => {
  const prompts = distinctPrompts(400);
  const openings = prompts.map((prompt) => prompt.split(' ').slice(0, 3).join(' '));
  const stories = prompts.map((prompt) => prompt.slice(prompt.indexOf('story.'), -' Then'.length).slice(0, 120));
  assert.equal(new Set(openings.slice(0, 40).map((opening) => opening.split(' ')[0])).size, 40);
  assert.equal(new Set(openings).size, 400);
  assert.equal(new Set(stories).size, 400);
});
