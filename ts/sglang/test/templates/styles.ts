/** Chat templates in the styles found in the wild, each with what is peculiar about it. */
import { families } from '../../src/templates/families.ts';

export interface Style {
  name: string;
  source: string;
  bosToken: string;
  eosToken: string;
  /** Roles must alternate, user first; others raise. */
  strict?: boolean;
  /** No system turn is taken. */
  noSystem?: boolean;
}

/** As SmolLM2 ships it: a default system turn where the first message is none. */
const defaultSystem =
  "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** The system turn stands in the first user turn; roles alternate or raise; contents are stripped; EOS after answers. */
const mergedSystem = `{%- if messages[0]['role'] == 'system' -%}
  {%- set offset = 1 -%}{%- set system = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' -%}
{%- else -%}{%- set offset = 0 -%}{%- set system = '' -%}{%- endif -%}
{%- for m in messages[offset:] -%}
  {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate user/assistant') }}{%- endif -%}
  {%- if m['role'] == 'user' -%}{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'].strip() + ' [/INST]' }}
  {%- else -%}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{%- endif -%}
{%- endfor -%}`;

/** Headers around roles, contents trimmed, BOS before the first turn only. */
const trimmedHeaders = `{%- for m in messages -%}
  {%- set turn = '<|h|>' + m['role'] + '<|/h|>\\n\\n' + m['content'] | trim + '<|eot|>' -%}
  {%- if loop.index0 == 0 -%}{%- set turn = bos_token + turn -%}{%- endif -%}{{ turn }}
{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|h|>assistant<|/h|>\\n\\n' }}{%- endif -%}`;

/** No system turn at all; answers are called model. */
const noSystem = `{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for m in messages -%}
  {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}
  {{ '<t>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] | trim + '</t>\\n' }}
{%- endfor -%}{%- if add_generation_prompt -%}{{ '<t>model\\n' }}{%- endif -%}`;

/** Contents only as lists of parts, as processors of vision models want them. */
const partsOnly =
  "{% for m in messages %}{{ m['role'] | upper }}: {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>" +
  "{% elif p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}" +
  '{% if add_generation_prompt %}ASSISTANT:{% endif %}';

/** The generation prompt opens a thought that a finished answer does not have. */
const thinking =
  "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}";

export const styles: readonly Style[] = [
  { name: 'default system turn', source: defaultSystem, bosToken: '<|im_start|>', eosToken: '<|im_end|>' },
  { name: 'system merged into user', source: mergedSystem, bosToken: '<s>', eosToken: '</s>', strict: true },
  { name: 'trimmed contents', source: trimmedHeaders, bosToken: '<|bos|>', eosToken: '<|eot|>' },
  { name: 'no system turn', source: noSystem, bosToken: '<bos>', eosToken: '<eos>', strict: true, noSystem: true },
  { name: 'lists of parts', source: partsOnly, bosToken: '<s>', eosToken: '</s>' },
  { name: 'thinking prompt', source: thinking, bosToken: '<s>', eosToken: '</s>' },
  ...families.map(({ name, template, bosToken, eosToken }) => ({
    name: `family ${name}`,
    source: template,
    bosToken,
    eosToken,
    strict: ['llama-2', 'mistral', 'gemma'].includes(name),
  })),
];
