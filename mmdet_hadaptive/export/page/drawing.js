/** Draws pictures and what was found in them. */

// Larger pictures are drawn smaller: no screen shows more, and telephones have little memory.
const LONGEST_SIDE = 2048;
const [SATURATION, VALUE] = [200 / 255, 230 / 255];

/**
 * The colour of a class, as in hadaptive_runtime/images.py.
 *
 * @param {number} label
 * @param {number} count Of classes.
 * @returns {string} In CSS.
 */
export function colourOf(label, count) {
  const hue = 2 * Math.floor((label * 180) / count);
  const channel = (offset) => {
    const sector = (offset + hue / 60) % 6;
    const share = Math.max(0, Math.min(sector, 4 - sector, 1));
    return Math.round(255 * VALUE * (1 - SATURATION * share));
  };
  return `rgb(${channel(5)}, ${channel(3)}, ${channel(1)})`;
}

/**
 * Draws a picture with detections.
 *
 * @param {HTMLCanvasElement} canvas Gets the picture's size, within limits.
 * @param {{source: CanvasImageSource, width: number, height: number}} picture
 * @param {object[]} found What is to be drawn, in pixels of the picture.
 * @param {number} count Of classes.
 */
export function draw(canvas, picture, found, count) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
  const width = Math.max(Math.round(picture.width * scale), 1);
  const height = Math.max(Math.round(picture.height * scale), 1);
  // A canvas is cleared, and shown empty for a moment, when its size is set.
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  context.drawImage(picture.source, 0, 0, width, height);
  // What is drawn has the same size on all screens.
  const unit = Math.max(canvas.width / (canvas.clientWidth || canvas.width), 1 / 8);
  context.lineWidth = 2 * unit;
  context.font = `${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = 'middle';
  // The best comes last, and so on top.
  for (const { box, score, label, name } of [...found].reverse()) {
    const [x1, y1, x2, y2] = box.map((value) => value * scale);
    const colour = colourOf(label, count);
    context.strokeStyle = colour;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${name} ${score.toFixed(2)}`;
    const textWidth = context.measureText(text).width + 8 * unit;
    const textHeight = 18 * unit;
    const left = Math.max(Math.min(x1 - unit, width - textWidth), 0);
    const top = Math.max(y1 - textHeight, 0);
    context.fillStyle = colour;
    context.fillRect(left, top, textWidth, textHeight);
    context.fillStyle = 'black';
    context.fillText(text, left + 4 * unit, top + textHeight / 2 + unit / 2);
  }
}
