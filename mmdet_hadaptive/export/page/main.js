/** The page: what is opened is detected in by a worker, and drawn. */

import { colourOf, draw } from './drawing.js';
import { readBitmap, readImage, readPixels } from './images.js';
import { closeVideo, nextFrame, openCamera, openVideo } from './videos.js';

const VIDEOS = /\.(mp4|m4v|mov|mkv|webm|avi|ogv)$/i;
// Over which the frames per second are counted, in milliseconds.
const SPAN = 2000;
// Of the window's height that a picture may have.
const SHARE = 0.75;
const element = (id) => document.getElementById(id);
const [file, camera, pause, stop, threshold] = ['file', 'camera', 'pause', 'stop', 'threshold'].map(
  element,
);
const [stage, canvas, status, speed] = ['stage', 'picture', 'status', 'speed'].map(element);

let metadata;
// Whatever is opened gets a number; what has an older one ends.
let turn = 0;
let video;
// What is shown: the picture, and all that was found in it.
let shown;

// The worker answers in the order in which it is asked.
const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
const waiting = new Map();
let number = 0;

function detect(image) {
  number += 1;
  const message = { number, image };
  worker.postMessage(message, [image.data.buffer]);
  return new Promise((resolve, reject) => waiting.set(message.number, { resolve, reject }));
}

function showError(text) {
  const line = element('error');
  line.textContent = text;
  line.hidden = !text;
}

const ANSWERS = {
  loading({ bytes }) {
    if (document.body.dataset.state) return;
    status.textContent = `Loading the model and ONNX Runtime: ${(bytes / 1e6).toFixed(1)} MB`;
  },
  ready(answer) {
    metadata = answer.metadata;
    const lowest = Math.ceil(metadata.score_threshold * 100) / 100;
    // Below it, the model itself gives nothing.
    threshold.min = lowest;
    threshold.value = Math.max(lowest, 0.3);
    element('lowest').value = Number(threshold.value).toFixed(2);
    const { classes, input_size: [height, width] } = metadata;
    const names = classes.length > 8 ? `${classes.length} classes` : classes.join(', ');
    element('about').textContent = `Finds ${names}. Images stay in this browser.`;
    const threads = answer.threads > 1 ? `, ${answer.threads} threads` : '';
    status.textContent = `Ready: input ${width} × ${height}${threads}`;
    for (const control of [file, camera, threshold]) control.disabled = false;
    document.body.dataset.state = 'ready';
  },
  broken({ message }) {
    showError(message);
    status.textContent = 'The model is not loaded';
    document.body.dataset.state = 'broken';
  },
  found({ number: answered, found, milliseconds }) {
    waiting.get(answered).resolve({ found, milliseconds });
    waiting.delete(answered);
  },
  failed({ number: answered, message }) {
    waiting.get(answered).reject(new Error(message));
    waiting.delete(answered);
  },
};
worker.onmessage = ({ data }) => ANSWERS[data.kind](data);
worker.onerror = (event) => {
  const cause = event.message ?? 'a file is missing, or this browser is too old';
  ANSWERS.broken({ message: `The page's worker does not start: ${cause}` });
};

function makeRow(cells) {
  const row = document.createElement('tr');
  for (const cell of cells) row.insertCell().textContent = cell;
  return row;
}

function makeCount(name, label, count) {
  const item = document.createElement('li');
  const dot = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const circle = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
  for (const [key, value] of Object.entries({ cx: '50%', cy: '50%', r: '50%' })) {
    circle.setAttribute(key, value);
  }
  circle.setAttribute('fill', colourOf(label, metadata.classes.length));
  dot.setAttribute('aria-hidden', 'true');
  dot.append(circle);
  item.append(dot, `${count} ${name}`);
  return item;
}

/** Shows the picture with what scores enough. */
function show() {
  if (!shown) return;
  const found = shown.found.filter(({ score }) => score >= Number(threshold.value));
  stage.classList.add('shows');
  canvas.hidden = false;
  element('hint').hidden = true;
  const room = { width: stage.clientWidth, height: SHARE * innerHeight };
  draw(canvas, room, shown.picture, found, metadata.classes.length);
  const counts = new Map();
  for (const { label } of found) counts.set(label, (counts.get(label) ?? 0) + 1);
  const items = metadata.classes.flatMap((name, label) =>
    counts.has(label) ? [makeCount(name, label, counts.get(label))] : [],
  );
  element('counts').replaceChildren(...items);
  const words = items.map((item) => item.textContent).join(', ') || 'nothing';
  canvas.setAttribute('aria-label', `${shown.name}: ${words} found`);
  if (!video) {
    const { width, height } = shown.picture;
    status.textContent = `${shown.name}, ${width} × ${height}: ${found.length || 'nothing'} found`;
  }
  element('list').hidden = !found.length;
  const list = found.map(({ name, score, box }) =>
    makeRow([name, score.toFixed(4), ...box.map((value) => value.toFixed(1))]),
  );
  element('boxes').replaceChildren(...list);
}

/** Ends what runs; the picture stays. */
function end() {
  turn += 1;
  if (video) closeVideo(video);
  video = undefined;
  pause.hidden = stop.hidden = true;
  showError('');
  speed.textContent = '';
}

async function showImage(opened) {
  const mine = turn;
  status.textContent = `Detecting in ${opened.name}`;
  const bitmap = await readImage(opened);
  const { width, height } = bitmap;
  const { found, milliseconds } = await detect(readBitmap(bitmap));
  if (mine !== turn) return;
  shown = { name: opened.name, picture: { source: bitmap, width, height }, found };
  show();
  speed.textContent = `${milliseconds.toFixed(0)} ms`;
}

async function showVideo(opened, name) {
  const mine = turn;
  const playing = await opened;
  if (mine !== turn) {
    closeVideo(playing);
    return;
  }
  video = playing;
  pause.textContent = 'Pause';
  pause.hidden = stop.hidden = false;
  status.textContent = name;
  const frame = document.createElement('canvas');
  const ends = [];
  for (let time = -1; mine === turn; ) {
    time = await nextFrame(playing, time, () => mine !== turn);
    if (mine !== turn) return;
    // The boxes belong to the frame that they were found in: it is kept until they are there.
    const [width, height] = [playing.videoWidth, playing.videoHeight];
    if (frame.width !== width || frame.height !== height) Object.assign(frame, { width, height });
    const context = frame.getContext('2d', { willReadFrequently: true });
    context.drawImage(playing, 0, 0);
    const pixels = context.getImageData(0, 0, width, height);
    const { found, milliseconds } = await detect({ data: pixels.data, width, height });
    if (mine !== turn) return;
    shown = { name, picture: { source: frame, width, height }, found };
    show();
    ends.push(performance.now());
    while (ends[0] < ends.at(-1) - SPAN) ends.shift();
    const rate = (1000 * (ends.length - 1)) / (ends.at(-1) - ends[0]);
    const rates = ends.length > 1 ? `${rate.toFixed(1)} frames per second, ` : '';
    speed.textContent = `${rates}${milliseconds.toFixed(0)} ms`;
  }
}

/** Ends what runs, and shows something else. */
async function start(show) {
  end();
  const mine = turn;
  try {
    await show();
  } catch (error) {
    if (mine !== turn) return;
    end();
    status.textContent = '';
    showError(error.message);
  }
}

function open(opened) {
  if (!opened || file.disabled) return;
  const isVideo = opened.type.startsWith('video/') || VIDEOS.test(opened.name);
  start(() => (isVideo ? showVideo(openVideo(opened), opened.name) : showImage(opened)));
}

for (const control of [file, camera, threshold]) control.disabled = true;
status.textContent = 'Loading the model and ONNX Runtime';
file.addEventListener('change', () => {
  open(file.files[0]);
  // So that the same file can be opened again.
  file.value = '';
});
camera.addEventListener('click', () => start(() => showVideo(openCamera(), 'Camera')));
pause.addEventListener('click', () => {
  if (video.paused) video.play();
  else video.pause();
  pause.textContent = video.paused ? 'Resume' : 'Pause';
});
stop.addEventListener('click', () => {
  end();
  show();
});
threshold.addEventListener('input', () => {
  element('lowest').value = Number(threshold.value).toFixed(2);
  show();
});
addEventListener('dragover', (event) => {
  event.preventDefault();
  stage.classList.add('over');
});
addEventListener('dragleave', () => stage.classList.remove('over'));
addEventListener('drop', (event) => {
  event.preventDefault();
  stage.classList.remove('over');
  open(event.dataTransfer.files[0]);
});
addEventListener('paste', (event) => open(event.clipboardData.files[0]));
new ResizeObserver(show).observe(stage);
