/** The smallest whole program: a model in this process, a question, its answer. */
import { Engine, fn, gen, setDefaultBackend } from 'sglang';

setDefaultBackend(await Engine.create({ modelPath: 'smollm2-135m-instruct' }));

const ask = fn((s, { question }: { question: string }) =>
  s.system`You are a helpful assistant.`.user(question).assistant(gen('answer', { temperature: 0 })),
);

const { vars } = await ask.run({ question: 'What is the capital of France?' });
console.log(vars.answer);
