// Runs a graph with the WebAssembly backend of ONNX Runtime Web; compare_web.py calls it.
//
// Usage: node run.mjs FOLDER
//
// FOLDER/job.json is a list of batches, each {input name: {type, dims, file}}. The files hold the raw bytes of the
// arrays. The logits of batch N go to FOLDER/N.logits as float32, and the outcome goes to FOLDER/result.json:
// {version, loads, runs, error}.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import * as ort from "onnxruntime-web";

const ARRAYS = { uint8: Uint8Array, int64: BigInt64Array };
const folder = process.argv[2];

async function readTensor({ type, dims, file }) {
  const { buffer, byteOffset, byteLength } = await readFile(join(folder, file));
  return new ort.Tensor(type, new ARRAYS[type](buffer.slice(byteOffset, byteOffset + byteLength)), dims);
}

ort.env.wasm.numThreads = 1; // Node.js supports one (README of onnxruntime-web, "Compatibility")
ort.env.logLevel = "error";
const result = { version: ort.env.versions.web, loads: false, runs: false, error: null };
try {
  const graph = await readFile(join(folder, "graph.onnx"));
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  result.loads = true;
  const batches = JSON.parse(await readFile(join(folder, "job.json"), "utf8"));
  for (const [index, batch] of batches.entries()) {
    const feeds = {};
    for (const [name, tensor] of Object.entries(batch)) {
      feeds[name] = await readTensor(tensor);
    }
    const { logits } = await session.run(feeds);
    if (logits.type !== "float32") {
      throw new Error(`logits are ${logits.type}, expected float32`);
    }
    await writeFile(join(folder, `${index}.logits`), logits.data);
  }
  result.runs = true;
} catch (error) {
  result.error = String(error?.message ?? error).replace(/\s+/g, " ").trim();
}
await writeFile(join(folder, "result.json"), JSON.stringify(result));
