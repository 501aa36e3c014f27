/** Detects beside the page, so that the page answers meanwhile. */

import { Detector } from './detector.js';

const MODEL = 'model.onnx';
const RUNTIME = 'onnxruntime/ort.wasm.bundle.min.js';
const BINARY = 'onnxruntime/ort-wasm-simd-threaded.wasm';

let detector;
let bytesLoaded = 0;

/** Fetches a file that lies beside this one, and says how far it has come. */
async function fetchBytes(name) {
  let response;
  try {
    // Asks the server whether the copy that the browser has is still the file.
    response = await fetch(new URL(name, import.meta.url), { cache: 'no-cache' });
  } catch (error) {
    throw new Error(`${name} cannot be loaded (${error.message}): is the server still there?`);
  }
  if (!response.ok) {
    throw new Error(
      `${name} is missing beside the page (status ${response.status}): copy the whole folder`,
    );
  }
  const reader = response.body.getReader();
  const chunks = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    bytesLoaded += value.length;
    postMessage({ kind: 'loading', bytes: bytesLoaded });
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function importRuntime() {
  try {
    return await import(`./${RUNTIME}`);
  } catch (error) {
    throw new Error(`${RUNTIME} is missing or damaged (${error.message}): copy the whole folder`);
  }
}

async function load() {
  const [runtime, binary, model] = await Promise.all([
    importRuntime(),
    fetchBytes(BINARY),
    fetchBytes(MODEL),
  ]);
  // As many threads as ONNX Runtime finds good, where the page may have some: see docs/export.md.
  runtime.env.wasm.wasmBinary = binary;
  detector = await Detector.load(runtime, model);
  // The first time takes longer.
  const { metadata } = detector;
  await detector.detect({ data: new Uint8ClampedArray(4), width: 1, height: 1 });
  const { numThreads } = runtime.env.wasm;
  postMessage({ kind: 'ready', metadata, threads: crossOriginIsolated ? numThreads : 1 });
}

self.onmessage = async ({ data: { number, image } }) => {
  try {
    const start = performance.now();
    const found = await detector.detect(image);
    postMessage({ kind: 'found', number, found, milliseconds: performance.now() - start });
  } catch (error) {
    postMessage({ kind: 'failed', number, message: error.message });
  }
};

load().catch((error) => postMessage({ kind: 'broken', message: error.message }));
