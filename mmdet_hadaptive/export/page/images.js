/** The pixels of pictures, as the files have them. */

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
// Fewer rows than any browser's limit to a canvas.
const ROWS = 512;

/**
 * Whether a file is a JPEG without its end. Chromium refuses these by itself; who else does is open.
 *
 * @param {Uint8Array} bytes Of the file.
 * @returns {boolean}
 */
export function isTruncatedJpeg(bytes) {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return false;
  // From segment to segment: a thumbnail has an end of its own, and anything may follow.
  for (let i = 2; i + 1 < bytes.length; ) {
    const kind = bytes[i + 1];
    const isRestart = kind >= 0xd0 && kind <= 0xd7;
    if (bytes[i] !== 0xff || kind === 0x00 || kind === 0xff || isRestart) {
      i += 1;
      continue;
    }
    if (kind === 0xd9) return false;
    i += 2;
    if (kind !== 0x01 && kind !== 0xd8) i += 256 * bytes[i] + bytes[i + 1];
  }
  return true;
}

/**
 * Whether a file is a PNG with 16 bits per channel, which browsers bring to 8 bits in silence: what
 * is white in it, nothing says.
 *
 * @param {Uint8Array} bytes Of the file.
 * @returns {boolean}
 */
export function isDeepPng(bytes) {
  const isPng = PNG.every((byte, place) => bytes[place] === byte);
  return isPng && bytes[24] === 16;
}

/**
 * Decodes an image file: upright, without the conversion of colours that a screen would need.
 *
 * @param {File} file
 * @returns {Promise<ImageBitmap>}
 * @throws {Error} If it cannot be read.
 */
export async function readImage(file) {
  const remedy = `${file.name} cannot be read as an image, or is truncated: choose another`;
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (isTruncatedJpeg(bytes)) throw new Error(remedy);
  if (isDeepPng(bytes)) {
    throw new Error(
      `${file.name} has 16 bits per channel: scale its values to 0..255 and save it with 8 bits`,
    );
  }
  const options = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
  try {
    return await createImageBitmap(file, options);
  } catch {
    throw new Error(remedy);
  }
}

function makeCanvas(width, height) {
  return Object.assign(document.createElement('canvas'), { width, height });
}

/**
 * Reads pixels through a canvas.
 *
 * @param {CanvasImageSource} source
 * @param {number} width Of the source.
 * @param {number} height Of the source.
 * @returns {{data: Uint8ClampedArray, width: number, height: number}} RGBA.
 */
export function readPixels(source, width, height) {
  const data = new Uint8ClampedArray(width * height * 4);
  const canvas = makeCanvas(width, Math.min(ROWS, height));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(source, 0, top, width, rows, 0, 0, width, rows);
    data.set(context.getImageData(0, 0, width, rows).data, top * width * 4);
  }
  return { data, width, height };
}

/**
 * Reads an image whose colours a canvas would multiply with its transparency, and so lose.
 *
 * @param {ImageBitmap} bitmap Not multiplied.
 * @returns {?Uint8ClampedArray} RGBA; null where there is no WebGL, or not for that size.
 */
function readTransparent(bitmap) {
  const gl = makeCanvas(1, 1).getContext('webgl');
  const { width, height } = bitmap;
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const texture = gl.createTexture();
  const data = new Uint8Array(width * height * 4);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  const isRead = gl.getError() === gl.NO_ERROR;
  gl.getExtension('WEBGL_lose_context')?.loseContext();
  return isRead ? new Uint8ClampedArray(data.buffer) : null;
}

/**
 * Reads the pixels of an image; of what is transparent, the colour that the file has there.
 *
 * @param {ImageBitmap} bitmap Of {@link readImage}.
 * @returns {{data: Uint8ClampedArray, width: number, height: number}} RGBA.
 */
export function readBitmap(bitmap) {
  const pixels = readPixels(bitmap, bitmap.width, bitmap.height);
  for (let i = 3; i < pixels.data.length; i += 4) {
    if (pixels.data[i] !== 255) {
      return { ...pixels, data: readTransparent(bitmap) ?? pixels.data };
    }
  }
  return pixels;
}
