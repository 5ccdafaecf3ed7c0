/** Pictures that clients name: fetched by the rules for strangers, and only for a model that can see them. */
import { SglangError } from '../engine/errors.ts';
import { imageFiles } from '../engine/image-file.ts';
import type { EngineLike } from '../engine/types.ts';

/** Most pictures of a prompt; each may be as large as a file may be. */
const MAX_IMAGES = 64;

/** The files, in order. */
export async function strangersImages(
  images: readonly string[],
  { model }: EngineLike,
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  if (!model.takesImages) {
    throw new SglangError('unsupported', `the model ${model.modelPath} does not take images`, 'image_data');
  }
  if (images.length > MAX_IMAGES) {
    const message = `expected at most ${MAX_IMAGES} images for a prompt, got ${images.length}`;
    throw new SglangError('bad_request', message, 'image_data');
  }
  return imageFiles(images, { trusted: false, signal });
}
