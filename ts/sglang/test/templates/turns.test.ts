/** Rendering role by role, against the template's own rendering, in all styles. */
import test from 'ava';
import fc from 'fast-check';
import type { Role, Turn } from '../../src/backends/backend.ts';
import { ChatTemplate } from '../../src/templates/chat-template.ts';
import { rolePieces, renderTurns } from '../../src/templates/turns.ts';
import { styles, type Style } from './styles.ts';

const templateOf = ({ source, ...tokens }: Style) => new ChatTemplate(source, tokens);
const turn = (role: Role | null, text: string, open = false): Turn => ({
  role,
  content: text === '' ? [] : [text],
  open,
});

/** Words, as the contents of a conversation have no white space around them that a template could trim. */
const words = fc.stringMatching(/^[A-Za-z]{1,8}( [A-Za-z.,?]{1,8}){0,3}$/);

/** Conversations that the style's template accepts. */
function conversations({ strict, noSystem }: Style): fc.Arbitrary<Turn[]> {
  const pairs = fc.array(fc.tuple(words, words), { minLength: 1, maxLength: 4 });
  const strictOnes = pairs.map((list) => list.flatMap(([q, a]) => [turn('user', q), turn('assistant', a)]));
  const free = fc.array(fc.tuple(fc.constantFrom<Role[]>('user', 'assistant'), words), { minLength: 1, maxLength: 6 });
  const freeOnes = free.map((list) => list.map(([role, text]) => turn(role, text)));
  const turns = strict ? strictOnes : fc.oneof(strictOnes, freeOnes);
  if (noSystem) return turns;
  return fc
    .tuple(fc.option(words), turns)
    .map(([system, rest]) => (system === null ? rest : [turn('system', system), ...rest]));
}

for (const style of styles) {
  const template = templateOf(style);
  const text = (turns: readonly Turn[]) => renderTurns(turns, rolePieces(template)).text;

  test(`${style.name}: a whole conversation reads as the template renders it`, (t) => {
    fc.assert(
      fc.property(conversations(style), (turns) => {
        const messages = turns.map(({ role, content }) => ({ role: role!, content: content.join('') }));
        t.is(text(turns), template.render(messages, { addGenerationPrompt: false }));
      }),
      { numRuns: 50 },
    );
  });

  test(`${style.name}: a conversation begins with every prompt on its way and what was generated there`, (t) => {
    fc.assert(
      fc.property(conversations(style), (turns) => {
        const generated = turns.map((one) =>
          one.role === 'assistant' ? turn('assistant', ` ${one.content.join('')}\n`) : one,
        );
        const whole = text(generated);
        for (const [i, { role, content }] of generated.entries()) {
          if (role !== 'assistant') continue;
          for (let length = 0; length <= content.join('').length; length++) {
            const prompt = text([...generated.slice(0, i), turn('assistant', content.join('').slice(0, length), true)]);
            t.true(whole.startsWith(prompt), `${JSON.stringify(whole)} begins with ${JSON.stringify(prompt)}`);
          }
        }
      }),
      { numRuns: 50 },
    );
  });
}

const style = (name: string) => styles.find((one) => one.name === name)!;
const shown = (name: string, turns: readonly Turn[]) => renderTurns(turns, rolePieces(templateOf(style(name)))).text;

test('an answer is asked for as the generation prompt does, not as finished answers are set', (t) => {
  const turns = [turn('user', 'hi'), turn('assistant', '', true)];
  t.is(shown('system merged into user', turns), '<s>[INST] hi [/INST]');
  t.is(shown('trimmed contents', turns), '<|bos|><|h|>user<|/h|>\n\nhi<|eot|><|h|>assistant<|/h|>\n\n');
  const answered = [turn('user', 'hi'), turn('assistant', ' Hello'), turn('user', 'bye'), turn('assistant', '', true)];
  t.is(shown('system merged into user', answered), '<s>[INST] hi [/INST] Hello </s><s>[INST] bye [/INST]');
});

test('the default system turn stands before the first turn only if that is none', (t) => {
  const asked = [turn('user', 'hi'), turn('assistant', '', true)];
  const start = '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n';
  t.is(shown('default system turn', asked), `${start}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n`);
  const own = [turn('system', 'Be kind.'), ...asked];
  t.is(
    shown('default system turn', own),
    '<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n',
  );
});

test('orders that a strict template refuses are put together from its pieces', (t) => {
  const twice = [turn('user', 'a'), turn('user', 'b'), turn('assistant', '', true)];
  t.is(shown('no system turn', twice), '<bos><t>user\na</t>\n<t>user\nb</t>\n<t>model\n');
  t.is(shown('system merged into user', twice), '<s>[INST] a [/INST]<s>[INST] b [/INST]');
});

test('plain text stands as it is, before, between and after turns', (t) => {
  t.is(shown('default system turn', [turn(null, 'Q: ', true)]), 'Q: ');
  const mixed = [turn(null, 'plain '), turn('user', 'hi'), turn(null, ' more', true)];
  t.is(shown('default system turn', mixed), 'plain <|im_start|>user\nhi<|im_end|>\n more');
});

test('given text is trimmed where the template trims, an answer never', (t) => {
  const turns = [turn('user', ' hi\n'), turn('assistant', ' yes ')];
  t.is(shown('trimmed contents', turns), '<|bos|><|h|>user<|/h|>\n\nhi<|eot|><|h|>assistant<|/h|>\n\n yes <|eot|>');
  t.true(shown('default system turn', turns).includes('user\n hi\n<|im_end|>'));
});

test('images leave marks in the text and come in their order', (t) => {
  const content = ['a ', { image: 'x.png' }, { image: 'y.png' }, ' b'];
  const { text, images } = renderTurns(
    [{ role: 'user', content, open: false }],
    rolePieces(templateOf(style('lists of parts'))),
  );
  t.is(text, 'USER: a <image><image> b\n');
  t.deepEqual(images, ['x.png', 'y.png']);
});
