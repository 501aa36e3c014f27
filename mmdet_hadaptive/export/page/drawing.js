/** Draws pictures and what was found in them. */

// More is seen on few screens, and telephones have little memory.
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
 * Draws a picture with detections, as large as there is room for, in pixels of the screen.
 *
 * @param {HTMLCanvasElement} canvas Gets the size of what is drawn.
 * @param {{width: number, height: number}} room In pixels of CSS.
 * @param {{source: CanvasImageSource, width: number, height: number}} picture
 * @param {object[]} found What is to be drawn, in pixels of the picture, best first.
 * @param {number} count Of classes.
 */
export function draw(canvas, room, picture, found, count) {
  const wanted = Math.min(room.width / picture.width, room.height / picture.height);
  const longest = LONGEST_SIDE / Math.max(picture.width, picture.height);
  const scale = Math.min(wanted * devicePixelRatio, longest);
  const width = Math.max(Math.round(picture.width * scale), 1);
  const height = Math.max(Math.round(picture.height * scale), 1);
  // A canvas is cleared, and shown empty for a moment, when its size is set.
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.style.width = `${Math.max(Math.floor(picture.width * wanted), 1)}px`;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  context.drawImage(picture.source, 0, 0, width, height);
  // Lines and letters have the same size on all screens.
  const unit = scale / wanted;
  const boxes = found.map(({ box }) =>
    box.map((value, i) => (value * (i % 2 ? height / picture.height : width / picture.width))),
  );
  // The best comes last, and so on top; names come after all boxes.
  const order = [...found.keys()].reverse();
  context.lineWidth = 2 * unit;
  for (const i of order) {
    const [x1, y1, x2, y2] = boxes[i];
    context.strokeStyle = colourOf(found[i].label, count);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  context.font = `${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = 'middle';
  for (const i of order) {
    const { name, score, label } = found[i];
    const text = `${name} ${score.toFixed(2)}`;
    const textWidth = context.measureText(text).width + 8 * unit;
    const textHeight = 18 * unit;
    const left = Math.max(Math.min(boxes[i][0] - unit, width - textWidth), 0);
    const top = Math.max(boxes[i][1] - textHeight, 0);
    context.fillStyle = colourOf(label, count);
    context.fillRect(left, top, textWidth, textHeight);
    context.fillStyle = 'black';
    context.fillText(text, left + 4 * unit, top + textHeight / 2 + unit / 2);
  }
}
