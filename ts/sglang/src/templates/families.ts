/**
 * Chat templates of well-known model families, for models and servers that ship none. Law: a family is Jinja like any
 * shipped template, so there is one way to render. The formats are those of the models' published cards.
 */

export interface Family {
  readonly name: string;
  /** Matches the paths of its models. */
  readonly paths: RegExp;
  readonly template: string;
  readonly bosToken: string;
  readonly eosToken: string;
}

/** Every turn looks the same but for its role: `open` and `close` stand around it, `prompt` asks for an answer. */
function byRole(open: string, close: string, prompt: string): string {
  const turns = `{% for m in messages %}${open}{{ m['content'] }}${close}{% endfor %}`;
  return `${turns}{% if add_generation_prompt %}${prompt}{% endif %}`;
}

/** For families that know no system turn: `system` is put into the first of `rest`. */
const takeSystem =
  "{% if messages and messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}" +
  "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}";

const chatml: Family = {
  name: 'chatml',
  paths: /qwen|smollm|chatml|yi-.*chat|hermes/i,
  template: byRole("<|im_start|>{{ m['role'] }}\n", '<|im_end|>{{ "\\n" }}', '<|im_start|>assistant{{ "\\n" }}'),
  bosToken: '',
  eosToken: '<|im_end|>',
};

const llama3: Family = {
  name: 'llama-3',
  paths: /llama-?3/i,
  template:
    '{{ bos_token }}' +
    byRole(
      "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n",
      '<|eot_id|>',
      '<|start_header_id|>assistant<|end_header_id|>{{ "\\n\\n" }}',
    ),
  bosToken: '<|begin_of_text|>',
  eosToken: '<|eot_id|>',
};

const llama2: Family = {
  name: 'llama-2',
  paths: /llama-?2.*chat|codellama.*instruct/i,
  template:
    takeSystem +
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ bos_token }}[INST] " +
    "{% if loop.first and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}{{ m['content'] }} [/INST]" +
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}",
  bosToken: '<s>',
  eosToken: '</s>',
};

const mistral: Family = {
  name: 'mistral',
  paths: /mi[sx]tral/i,
  template:
    `{{ bos_token }}${takeSystem}` +
    "{% for m in rest %}{% if m['role'] == 'user' %}[INST] " +
    "{% if loop.first and system %}{{ system }}\n\n{% endif %}{{ m['content'] }} [/INST]" +
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
  bosToken: '<s>',
  eosToken: '</s>',
};

const vicuna: Family = {
  name: 'vicuna',
  paths: /vicuna|llava-?v?1\.5/i,
  template:
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }} " +
    "{% elif m['role'] == 'user' %}USER: {{ m['content'] }} {% else %}ASSISTANT: {{ m['content'] }}{{ eos_token }}{% endif %}" +
    '{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}',
  bosToken: '<s>',
  eosToken: '</s>',
};

const zephyr: Family = {
  name: 'zephyr',
  paths: /zephyr|tiny-?llama.*chat/i,
  template: byRole("<|{{ m['role'] }}|>\n", '{{ eos_token }}{{ "\\n" }}', '<|assistant|>{{ "\\n" }}'),
  bosToken: '<s>',
  eosToken: '</s>',
};

const gemma: Family = {
  name: 'gemma',
  paths: /gemma/i,
  template:
    `{{ bos_token }}${takeSystem}` +
    "{% for m in rest %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n" +
    "{% if loop.first and system %}{{ system }}\n\n{% endif %}{{ m['content'] }}" +
    '<end_of_turn>{{ "\\n" }}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model{{ "\\n" }}{% endif %}',
  bosToken: '<bos>',
  eosToken: '<eos>',
};

const phi: Family = {
  name: 'phi',
  paths: /phi-?[34]/i,
  template: byRole("<|{{ m['role'] }}|>\n", '<|end|>{{ "\\n" }}', '<|assistant|>{{ "\\n" }}'),
  bosToken: '<s>',
  eosToken: '<|endoftext|>',
};

/** In the order they are tried: a model's name often holds the name of what it was made from after its own. */
export const families: readonly Family[] = [vicuna, zephyr, chatml, llama3, llama2, mistral, gemma, phi];

/** The family called `name`, if there is one. */
export function familyNamed(name: string): Family | undefined {
  return families.find((family) => family.name === name);
}

/** The family of a model by its path; ChatML, the most widely understood, where nothing is known. */
export function familyOf(modelPath: string): Family {
  return families.find(({ paths }) => paths.test(modelPath)) ?? chatml;
}
