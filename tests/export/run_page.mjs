// Runs the scripts of a page in node: run_page.mjs FOLDER REQUESTS, and prints an answer to each.
//
// A request is [what, arguments]; images are files of RGBA with their width and height.
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [folder, requests] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const read = (file) => new Uint8Array(readFileSync(file));
const readImage = ({ file, width, height }) => ({ data: read(file), width, height });

const ACTIONS = {
  async prepare({ image, metadata, out }) {
    const { prepare } = await load('preprocessing.js');
    const { input, factors } = prepare(readImage(image), metadata);
    writeFileSync(out, input);
    return factors;
  },
  async metadata({ file }) {
    const { readMetadata } = await load('model_file.js');
    return readMetadata(read(file));
  },
  async refused({ file }) {
    const { isDeepPng, isTruncatedJpeg } = await load('images.js');
    return isTruncatedJpeg(read(file)) || isDeepPng(read(file));
  },
  async detect({ images }) {
    const { Detector } = await load('detector.js');
    const runtime = await load('onnxruntime/ort.wasm.bundle.min.js');
    runtime.env.wasm.numThreads = 1;
    runtime.env.wasm.wasmBinary = read(`${folder}/onnxruntime/ort-wasm-simd-threaded.wasm`);
    const detector = await Detector.load(runtime, read(`${folder}/model.onnx`));
    const found = [];
    for (const image of images) found.push(await detector.detect(readImage(image)));
    return found;
  },
};

const answers = [];
for (const [what, argument] of JSON.parse(readFileSync(requests))) {
  try {
    answers.push([await ACTIONS[what](argument), null]);
  } catch (error) {
    answers.push([null, error.message]);
  }
}
console.log(JSON.stringify(answers));
