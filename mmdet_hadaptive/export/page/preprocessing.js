/**
 * From pixels to the input of the model, to the last bit as hadaptive_runtime/preprocessing.py.
 *
 * A canvas resizes in a way of its own, so that it is done here.
 */

// cv2.resize computes in integers, with weights of 11 bits.
const SCALE = 2048;

/** Rounds as rint does: halves to the even neighbour. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Where the pixels of a resized line come from.
 *
 * @param {number} from Length of the line.
 * @param {number} to Length of the resized line.
 * @param {boolean} clamp Whether the weights are those of the border beyond it. cv2.resize does so
 *     in rows, and in columns clamps the places instead.
 * @returns {{first: Int32Array, second: Int32Array, weights: Int32Array[]}} For each pixel two
 *     places and their weights.
 */
function interpolate(from, to, clamp) {
  const first = new Int32Array(to);
  const second = new Int32Array(to);
  const weights = [new Int32Array(to), new Int32Array(to)];
  const scale = 1 / (to / from);
  for (let i = 0; i < to; i += 1) {
    const centre = Math.fround((i + 0.5) * scale - 0.5);
    let place = Math.floor(centre);
    let share = Math.fround(centre - place);
    if (clamp && (place < 0 || place >= from - 1)) {
      place = place < 0 ? 0 : from - 1;
      share = 0;
    }
    first[i] = Math.min(Math.max(place, 0), from - 1);
    second[i] = Math.min(Math.max(place + 1, 0), from - 1);
    weights[0][i] = roundHalfEven(Math.fround(Math.fround(1 - share) * SCALE));
    weights[1][i] = roundHalfEven(Math.fround(share * SCALE));
  }
  return { first, second, weights };
}

/**
 * Resizes as cv2.resize does by default, bilinearly and without averaging over more than 2 x 2.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA; A is dropped.
 * @param {number} width New one.
 * @param {number} height New one.
 * @returns {Uint8Array} RGB, row by row.
 */
export function resize(image, width, height) {
  const columns = interpolate(image.width, width, true);
  const rows = interpolate(image.height, height, false);
  const [left, right] = columns.weights;
  const made = new Uint8Array(width * height * 3);
  // The two rows of the source that were last resized, and which they are.
  let [upper, lower] = [new Int32Array(width * 3), new Int32Array(width * 3)];
  let [isUpper, isLower] = [-1, -1];

  function resizeRow(row, into) {
    const start = row * image.width * 4;
    for (let x = 0, at = 0; x < width; x += 1) {
      const [a, b] = [left[x], right[x]];
      const one = start + columns.first[x] * 4;
      const two = start + columns.second[x] * 4;
      for (let channel = 0; channel < 3; channel += 1, at += 1) {
        into[at] = image.data[one + channel] * a + image.data[two + channel] * b;
      }
    }
  }

  for (let y = 0, at = 0; y < height; y += 1) {
    const [above, below] = [rows.first[y], rows.second[y]];
    if (isLower === above) {
      [upper, lower] = [lower, upper];
      [isUpper, isLower] = [isLower, isUpper];
    }
    if (isUpper !== above) {
      resizeRow(above, upper);
      isUpper = above;
    }
    if (isLower !== below) {
      resizeRow(below, lower);
      isLower = below;
    }
    const [a, b] = [rows.weights[0][y], rows.weights[1][y]];
    for (let i = 0; i < upper.length; i += 1, at += 1) {
      made[at] = (((a * (upper[i] >> 4)) >> 16) + ((b * (lower[i] >> 4)) >> 16) + 2) >> 2;
    }
  }
  return made;
}

/**
 * Prepares an image.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA; A is dropped.
 * @param {object} metadata Of the model.
 * @returns {{input: Float32Array, factors: number[]}} The input, channel by channel, and by what
 *     the image was resized in width and height.
 */
export function prepare(image, metadata) {
  let [height, width] = metadata.resize;
  if (metadata.keep_ratio) {
    const scale = Math.min(height / image.height, width / image.width);
    height = Math.max(Math.floor(image.height * scale + 0.5), 1);
    width = Math.max(Math.floor(image.width * scale + 0.5), 1);
  }
  const [inputHeight, inputWidth] = metadata.input_size;
  if (height > inputHeight || width > inputWidth) {
    throw new Error(
      `The image is ${width} x ${height} pixels after it was resized, the input ` +
        `${inputWidth} x ${inputHeight}: export with a --size in which upright and wide images fit`,
    );
  }
  const pixels = resize(image, width, height);
  const area = inputHeight * inputWidth;
  const input = new Float32Array(3 * area);
  const order = metadata.channel_order === 'RGB' ? [0, 1, 2] : [2, 1, 0];
  order.forEach((source, channel) => {
    const [mean, std] = [Math.fround(metadata.mean[channel]), Math.fround(metadata.std[channel])];
    const normalize = (value) => Math.fround(Math.fround(value - mean) / std);
    const table = Float32Array.from({ length: 256 }, (_, value) => normalize(value));
    const plane = input.subarray(channel * area, (channel + 1) * area);
    plane.fill(normalize(Math.fround(metadata.pad_value[channel])));
    for (let y = 0, from = source; y < height; y += 1) {
      const start = y * inputWidth;
      for (let x = 0; x < width; x += 1, from += 3) plane[start + x] = table[pixels[from]];
    }
  });
  return {
    input,
    factors: [Math.fround(width / image.width), Math.fround(height / image.height)],
  };
}
