/** An exported detector in ONNX Runtime Web, as hadaptive_runtime/detector.py is one in Python. */

import { readMetadata } from './model_file.js';
import { prepare } from './preprocessing.js';

export class Detector {
  /**
   * Loads a model.
   *
   * @param {object} runtime ONNX Runtime Web.
   * @param {Uint8Array} content Of the ONNX file.
   * @returns {Promise<Detector>}
   * @throws {Error} If it has no metadata, or ONNX Runtime refuses it.
   */
  static async load(runtime, content) {
    const metadata = readMetadata(content);
    let session;
    try {
      session = await runtime.InferenceSession.create(content, { executionProviders: ['wasm'] });
    } catch (error) {
      const cause = error.message.split('\n')[0].slice(0, 200);
      throw new Error(
        `ONNX Runtime Web does not load the model (${cause}): copy the whole folder, or update ` +
          'the browser',
      );
    }
    return new Detector(runtime, session, metadata);
  }

  constructor(runtime, session, metadata) {
    this.runtime = runtime;
    this.session = session;
    this.metadata = metadata;
  }

  /**
   * Detects objects.
   *
   * @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA; A is dropped.
   * @returns {Promise<{box: number[], score: number, label: number, name: string}[]>} What is
   *     found, best first; boxes are (x1, y1, x2, y2) in pixels of the image.
   */
  async detect(image) {
    const { input, factors } = prepare(image, this.metadata);
    const shape = [1, 3, ...this.metadata.input_size];
    const tensor = new this.runtime.Tensor('float32', input, shape);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const [boxes, scores, labels] = ['boxes', 'scores', 'labels'].map((name) => outputs[name].data);
    const limits = [image.width, image.height];
    const found = [];
    scores.forEach((score, row) => {
      const label = Number(labels[row]);
      // Every image has the same number of rows; those without a detection have the label -1.
      if (label < 0) return;
      const box = Array.from(boxes.subarray(row * 4, row * 4 + 4), (value, i) =>
        Math.min(Math.max(Math.fround(value / factors[i % 2]), 0), limits[i % 2]),
      );
      found.push({ box, score, label, name: this.metadata.classes[label] });
    });
    return found;
  }
}
