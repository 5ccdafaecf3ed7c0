/**
 * `sglang/testing`: backends for the tests of programs.
 *
 * @module testing
 */
export { FakeBackend, type FakeCall, type FakeOptions, type FakeReply } from '../backends/fake.ts';
export { recorded, type RecordedOptions } from './recorded.ts';
