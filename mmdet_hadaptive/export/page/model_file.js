/** Reads what tools/export.py has written into an ONNX file beside the network. */

const REMEDY = 'copy it again, or export it with tools/export.py';
// The field of protobuf in which ONNX has its metadata.
const METADATA = 14;
// The last of them, up to its value: what comes before it is what the SHA-256 in it covers.
const DIGEST_ENTRY = 'rL\n\x06sha256\x12B';
const DIGEST_BYTES = DIGEST_ENTRY.length + 66;

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
 * @throws {Error} If there are none, or the model gives something else than detections.
 */
export function readMetadata(content) {
  const decoder = new TextDecoder();
  const metadata = {};
  try {
    for (const [field, entry] of readFields(content)) {
      if (field !== METADATA) continue;
      const [key, value] = Array.from(readFields(entry), ([, text]) => decoder.decode(text));
      metadata[key] = JSON.parse(value);
    }
  } catch (error) {
    throw new Error(`The model is damaged (${error.message}): ${REMEDY}`);
  }
  if (!('sha256' in metadata)) {
    throw new Error(`The model is damaged, or was not written by tools/export.py: ${REMEDY}`);
  }
  if (metadata.mode !== 'nms') {
    throw new Error(`The model has the mode '${metadata.mode}': export it with mode 'nms'`);
  }
  return metadata;
}

/**
 * Holds the model to the SHA-256 at its end. Browsers compute one on https and localhost only;
 * elsewhere nothing is checked.
 *
 * @param {Uint8Array} content Of the file.
 * @throws {Error} If it does not fit.
 */
export async function checkDigest(content) {
  if (!globalThis.crypto?.subtle) return;
  const body = content.subarray(0, -DIGEST_BYTES);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', body));
  const text = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const end = new TextDecoder('latin1').decode(content.subarray(-DIGEST_BYTES));
  if (end !== `${DIGEST_ENTRY}"${text}"`) {
    throw new Error(`The model is damaged (it does not fit its SHA-256): ${REMEDY}`);
  }
}
