/** The model in the browser: the package beside the page, run by ONNX Runtime Web. */
import * as ort from "./vendor/ort.wasm.bundle.min.mjs";
import * as tokenizers from "./vendor/tokenizers.min.mjs";
import { Predictor } from "./predictor.js";

export const PROMISE =
  "Pictures and captions stay on this device: the model runs in your browser, and this page can load its own files only.";

/** Load the model. */
export async function load(onProgress) {
  ort.env.wasm.wasmPaths = { wasm: new URL("vendor/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency ?? 1) : 1;
  ort.env.logLevel = "error";
  return Predictor.load(new URL("model/", document.baseURI), { ort, tokenizers, onProgress });
}

/** Return what runs, in a few words. */
export function facts({ manifest, precision }) {
  const graph = Object.values(manifest.files).find((file) => file.precision === precision);
  const threads = ort.env.wasm.numThreads === 1 ? "one thread" : `${ort.env.wasm.numThreads} threads`;
  return `${precision}, ${(graph.bytes / 1e6).toFixed(1)} MB, ONNX Runtime Web ${ort.env.versions.web} with ${threads}`;
}
