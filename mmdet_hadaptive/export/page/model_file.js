/** Reads what tools/export.py has written into an ONNX file beside the network. */

const REMEDY = 'copy it again, or export it with tools/export.py';
// The field of protobuf in which ONNX has its metadata.
const METADATA = 14;
const NEEDED = [
  ...['mode', 'classes', 'input_size', 'resize', 'keep_ratio', 'channel_order', 'mean', 'std'],
  'pad_value',
];

/** The fields of a message of protobuf: number and, of those that have it, content. */
function* readFields(bytes) {
  let at = 0;
  function readNumber() {
    let [value, factor, byte] = [0, 1, 0];
    do {
      if (at >= bytes.length) throw new RangeError('it ends within a number');
      byte = bytes[at];
      at += 1;
      value += (byte & 127) * factor;
      factor *= 128;
    } while (byte & 128);
    return value;
  }
  while (at < bytes.length) {
    const key = readNumber();
    const [field, kind] = [Math.floor(key / 8), key % 8];
    if (kind === 0) {
      readNumber();
    } else if (kind === 2) {
      const length = readNumber();
      if (at + length > bytes.length) throw new RangeError('it ends within a field');
      yield [field, bytes.subarray(at, at + length)];
      at += length;
    } else if (kind === 1 || kind === 5) {
      at += kind === 1 ? 8 : 4;
    } else {
      throw new RangeError('a field is of no kind');
    }
  }
}

/**
 * Reads the metadata.
 *
 * @param {Uint8Array} content Of the file.
 * @returns {object} By their names.
 * @throws {Error} If they are not those of a detector.
 */
export function readMetadata(content) {
  const decoder = new TextDecoder();
  const metadata = {};
  try {
    for (const [field, entry] of readFields(content)) {
      if (field !== METADATA) continue;
      const [key, value] = Array.from(readFields(entry), ([, text]) => decoder.decode(text));
      try {
        metadata[key] = JSON.parse(value);
      } catch {
        // Other tools add metadata of their own, which need not be JSON.
      }
    }
  } catch (error) {
    throw new Error(`The model is damaged (${error.message}): ${REMEDY}`);
  }
  if ('mode' in metadata && metadata.mode !== 'nms') {
    throw new Error(`The model gives ${metadata.mode}: export it with --outputs detections`);
  }
  if (!NEEDED.every((key) => key in metadata)) {
    throw new Error(`The model is damaged, or was not written by tools/export.py: ${REMEDY}`);
  }
  if ('priors_per_level' in metadata) {
    throw new Error(
      'The model leaves out boxes by their size in the image, which the page cannot do: export it ' +
        'with model.test_cfg.min_bbox_size=0',
    );
  }
  return metadata;
}
