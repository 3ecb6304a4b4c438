import assert from "node:assert/strict";
import { createHash, webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";

import * as tokenizers from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web";

import { InputError, PackageError, Predictor } from "../predictor.js";
import { splitOrientation, turn } from "../orientation.js";
import { readManifest } from "../package-reader.js";
import { readPixels } from "../picture.js";
import { reduce } from "../resize.js";
import { CaptionTokenizer } from "../tokenizer.js";

globalThis.crypto ??= webcrypto;
ort.env.logLevel = "error";
const GOLDEN = JSON.parse(readFileSync(new URL("golden.json", import.meta.url)));
const PACKAGE = new URL("../../exported/hybrid/", import.meta.url);

/** The pixels of golden.py. */
function picture(width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let at = 0; at < data.length; at++) {
    const n = BigInt(at);
    data[at] = Number(((n * n * 31n + n * 7n) / 11n) % 256n);
  }
  return { data, width, height };
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function files() {
  const names = await readdir(PACKAGE);
  return new Map(await Promise.all(names.map(async (name) => [name, new Uint8Array(await readFile(new URL(name, PACKAGE)))])));
}

const load = (found, options = {}) => Predictor.load(found, { ort, tokenizers, ...options });

for (const { width, height, interpolation, resize, sha256: expected } of GOLDEN.resized) {
  test(`${width} x ${height} pixels, ${interpolation}, ${resize}, are resized as Pillow does`, async () => {
    const spec = { height: 64, width: 48, interpolation, resize };
    assert.equal(sha256(await readPixels(picture(width, height), spec)), expected);
  });
}

for (const { width, height, by, sha256: expected } of GOLDEN.reduced) {
  test(`${width} x ${height} pixels are reduced by ${by} as Pillow does`, () => {
    assert.equal(sha256(reduce(picture(width, height), ...by).data), expected);
  });
}

for (const { orientation, width, sha256: expected, files } of GOLDEN.turned) {
  test(`an orientation of ${orientation} is found and turned as Pillow does`, async () => {
    const turned = turn(picture(7, 5), orientation);
    assert.equal(turned.width, width);
    assert.equal(sha256(turned.data), expected);
    for (const [format, content] of Object.entries(files)) {
      const blob = new Blob([Buffer.from(content, "base64")], { type: "image/x" });
      const found = await splitOrientation(blob);
      const read = format !== "PNG";
      assert.equal(found.orientation, read ? orientation : 1, format);
      assert.equal(found.upright.size, blob.size);
      assert.equal(found.upright.type, "image/x");
      assert.equal((await splitOrientation(found.upright)).orientation, 1);
    }
  });
}

test("a broken picture file has no orientation", async () => {
  for (const format of ["JPEG", "WEBP"]) {
    const content = Buffer.from(GOLDEN.turned[5].files[format], "base64");
    for (let size = 0; size < content.length; size += 1) {
      const { orientation, upright } = await splitOrientation(new Blob([content.subarray(0, size)]));
      assert.ok(orientation === 1 || orientation === 6);
      assert.equal(upright.size, size);
    }
  }
});

test("transparent and opaque bytes give the same pixels", async () => {
  const { data, width, height } = picture(30, 20);
  const rgba = new Uint8Array(width * height * 4).fill(255);
  for (let at = 0; at < width * height; at++) rgba.set(data.subarray(3 * at, 3 * at + 3), 4 * at);
  const spec = { height: 16, width: 16, interpolation: "bilinear", resize: "stretch" };
  assert.deepEqual(await readPixels({ data: rgba, width, height }, spec), await readPixels({ data, width, height }, spec));
});

test("captions get the ids of the tokenizers library", async () => {
  const manifest = JSON.parse(await readFile(new URL("manifest.json", PACKAGE)));
  const tokenizer = new CaptionTokenizer(await readFile(new URL("tokenizer.json", PACKAGE)), manifest.text, tokenizers);
  for (const { text, times, ids } of GOLDEN.captions) {
    assert.deepEqual(tokenizer.encode(text.repeat(times)), ids, JSON.stringify(text));
  }
  assert.deepEqual(tokenizer.encode("a \ud800 dog"), tokenizer.encode("a \ufffd dog"));
  assert.deepEqual(tokenizer.encode(null), []);
});

for (const { name, json, ids } of GOLDEN.tokenizers) {
  test(`captions get the ids of a tokenizer ${name}`, () => {
    const content = new TextEncoder().encode(JSON.stringify(json));
    const tokenizer = new CaptionTokenizer(content, { max_length: 12, pad_id: 0 }, tokenizers);
    GOLDEN.captions.forEach(({ text, times }, index) => {
      const caption = text.repeat(times);
      assert.deepEqual(tokenizer.encode(caption), ids[index], JSON.stringify(text));
      const placed = tokenizer.words(caption).flatMap((word) => word.tokens);
      assert.ok(placed.every((at) => at < ids[index].length));
      assert.equal(placed.length > 0, ids[index].length > 0);
    });
  });
}

test("words of a tokenizer with special tokens know their tokens", () => {
  const { json } = GOLDEN.tokenizers.find(({ name }) => name === "of BERT");
  const content = new TextEncoder().encode(JSON.stringify(json));
  const tokenizer = new CaptionTokenizer(content, { max_length: 12, pad_id: 0 }, tokenizers);
  const words = tokenizer.words("A cat, dogs");
  assert.deepEqual(words, [
    { text: "A", start: 0, end: 1, tokens: [1] },
    { text: "cat", start: 2, end: 5, tokens: [2] },
    { text: ",", start: 5, end: 6, tokens: [3] },
    { text: "dogs", start: 7, end: 11, tokens: [4, 5] },
  ]);
  assert.throws(() => new CaptionTokenizer(content, { max_length: 1, pad_id: 0 }, tokenizers), /adds 2 special tokens/);
});

test("words know their tokens", async () => {
  const manifest = JSON.parse(await readFile(new URL("manifest.json", PACKAGE)));
  const tokenizer = new CaptionTokenizer(await readFile(new URL("tokenizer.json", PACKAGE)), manifest.text, tokenizers);
  const caption = "A zebra-crossing, quixotically.";
  const words = tokenizer.words(caption);
  assert.deepEqual(words.map(({ text }) => text), ["A", "zebra", "-", "crossing", ",", "quixotically", "."]);
  assert.deepEqual(words.map(({ start, end }) => caption.slice(start, end)), words.map(({ text }) => text));
  assert.deepEqual(words.flatMap(({ tokens }) => tokens), tokenizer.encode(caption).map((_, index) => index));
  const long = tokenizer.words("dog ".repeat(300));
  assert.equal(long.flatMap(({ tokens }) => tokens).length, manifest.text.max_length);
});

test("probabilities are those of the Python runtime", async () => {
  const predictor = await load(await files(), { precision: "fp32" });
  const { height, width } = predictor.manifest.image;
  const rows = GOLDEN.predictions.map(({ picture: has, caption }) => ({ picture: has ? picture(width, height) : null, caption }));
  for (const [index, found] of (await predictor.predict(rows)).entries()) {
    found.scores.forEach(({ probability }, label) => {
      assert.ok(Math.abs(probability - GOLDEN.predictions[index].probabilities[label]) < 1e-4, `row ${index}, label ${label}`);
    });
    assert.deepEqual(new Set(found.labels), new Set(found.scores.filter(({ chosen }) => chosen).map(({ label }) => label)));
  }
  const one = await predictor.predict(rows[2]);
  assert.ok(one.milliseconds.graph > 0);
  await predictor.close();
});

test("the smallest graph is taken if none is asked for", async () => {
  const predictor = await load(await files());
  assert.equal(predictor.precision, "int8");
  const { evidence, scores } = await predictor.predict({ caption: "a cat on a sofa" }, { evidence: true });
  assert.equal(evidence !== null, predictor.hasEvidence);
  if (evidence !== null) assert.deepEqual(evidence.words.map(({ text }) => text), ["a", "cat", "on", "a", "sofa"]);
  assert.equal(scores.length, predictor.labels.length);
  await predictor.close();
});

const refused = async (change, message, options) => {
  const found = await files();
  change(found);
  await assert.rejects(load(found, options), (error) => {
    assert.ok(error instanceof PackageError, String(error));
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
};
const edit = (found, change) => {
  const manifest = JSON.parse(new TextDecoder().decode(found.get("manifest.json")));
  change(manifest);
  found.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
};

test("a manifest is taken or refused as by the runtime", async () => {
  for (const { keys, taken, ...change } of GOLDEN.manifests) {
    const found = await files();
    edit(found, (manifest) => {
      const holder = keys.slice(0, -1).reduce((value, key) => value[key], manifest);
      if ("value" in change) holder[keys.at(-1)] = change.value;
      else delete holder[keys.at(-1)];
    });
    const what = `${keys.join(".")} = ${JSON.stringify(change.value)?.slice(0, 80)}`;
    if (taken) {
      await assert.doesNotReject(readManifest(found), what);
    } else {
      await assert.rejects(readManifest(found), (error) => error instanceof PackageError && !error.message.includes("\n"), what);
    }
  }
});

test("a flipped bit is refused", () => refused((found) => { found.get("model.int8.onnx")[1000] ^= 1; }, /model.int8.onnx is not what the manifest says/));
test("a flipped bit of the tokenizer is refused", () => refused((found) => { found.get("tokenizer.json")[99] ^= 1; }, /tokenizer.json is not what/));
test("a shorter file is refused", () => refused((found) => found.set("model.int8.onnx", found.get("model.int8.onnx").slice(1)), /the manifest says/));
test("a missing file is refused", () => refused((found) => found.delete("tokenizer.json"), /has no tokenizer.json/));
test("a missing manifest is refused", () => refused((found) => found.delete("manifest.json"), /has no manifest.json/));
test("a manifest that is no JSON is refused", () => refused((found) => found.set("manifest.json", new Uint8Array([123])), /is not JSON/));
test("another schema is refused", () => refused((found) => edit(found, (m) => { m.schema_version = 2; }), /schema_version 2/));
test("a path in the manifest is refused", () => refused((found) => edit(found, (m) => { m.files["../x"] = m.files["README.md"]; }), /plain file names/));
test("a threshold out of range is refused", () => refused((found) => edit(found, (m) => { m.labels[0].threshold = 2; }), /in \[0, 1\]/));
test("a precision that is not there is named", () => refused(() => {}, /has no int4 graph; it has: /, { precision: "int4" }));
test("a tokenizer without its library is named", () => refused(() => {}, /@huggingface\/tokenizers/, { tokenizers: undefined }));

test("evidence goes to the row, label, place and word that it is of", async () => {
  const [height, width] = [2, 3];
  const tensor = (dims, data) => ({ dims, data });
  const session = {
    outputNames: ["logits", "picture_evidence", "caption_evidence"],
    run({ input_ids: { dims: [rows, length] } }) {
      const count = loaded.labels.length;
      const fill = (size) => Float32Array.from({ length: rows * count * size }, (_, index) => index);
      return {
        logits: tensor([rows, count], fill(1)),
        picture_evidence: tensor([rows, count, height, width], fill(height * width)),
        caption_evidence: tensor([rows, count, length], fill(length)),
      };
    },
  };
  const fake = { Tensor: class { constructor(_, data, dims) { Object.assign(this, { data, dims }); } } };
  fake.InferenceSession = { create: async () => session };
  const loaded = await Predictor.load(await files(), { ort: fake, tokenizers });
  const input = [{ caption: "a cat" }, { picture: picture(4, 4), caption: "two quixotically" }, { picture: picture(4, 4) }];
  const found = await loaded.predict(input, { evidence: true });
  const ids = found[1].evidence.words.map(({ text }) => text);
  assert.deepEqual(ids, ["two", "quixotically"]);
  const label = loaded.labels[5].name;
  const count = loaded.labels.length;
  assert.deepEqual([found[1].evidence.height, found[1].evidence.width], [height, width]);
  assert.deepEqual(Array.from(found[1].evidence.labels[label].picture), [0, 1, 2, 3, 4, 5].map((at) => (count + 5) * 6 + at));
  const manifest = loaded.manifest.text;
  const tokenizer = new CaptionTokenizer(await readFile(new URL("tokenizer.json", PACKAGE)), manifest, tokenizers);
  const length = tokenizer.encodeBatch(input.map(({ caption }) => caption ?? null)).length;
  const [first, ...others] = Array.from({ length: tokenizer.encode("two quixotically").length }, (_, at) => (count + 5) * length + at);
  assert.deepEqual(found[1].evidence.labels[label].words, [first, others.reduce((sum, each) => sum + each, 0)]);
  assert.equal(found[0].evidence.labels[label].picture, null);
  assert.deepEqual(found[2].evidence.labels[label].words, []);
  assert.equal((await loaded.predict(input[0])).evidence, null);
});

test("a graph with other labels is refused", async () => {
  const found = await files();
  edit(found, (manifest) => manifest.labels.pop());
  const predictor = await load(found);
  const labels = predictor.labels.length;
  await assert.rejects(predictor.predict({ caption: "a cat" }), (error) => {
    return error instanceof PackageError && error.message.includes(`expected 1 x ${labels} `);
  });
  await predictor.close();
});

test("bad input gets one line", async () => {
  const predictor = await load(await files());
  const bad = [
    [{ picture: null, caption: " " }, /nothing to predict/],
    [{ picture: null, caption: "\x85" }, /nothing to predict/],
    [{ caption: 5 }, /caption must be a text or null, found number/],
    [{ picture: { data: new Uint8Array(5), width: 2, height: 2 } }, /need 12 or 16 bytes, found 5/],
    [{ picture: { data: new Uint8Array(0), width: 0, height: 2 } }, /no pixels/],
    [{ picture: { data: new Uint8Array(0), width: 20_000, height: 20_000 } }, /more than the limit/],
    [Array(65).fill({ caption: "a" }), /more than 64/],
  ];
  for (const [input, message] of bad) {
    await assert.rejects(predictor.predict(input), (error) => error instanceof InputError && message.test(error.message));
  }
  assert.deepEqual(await predictor.predict([]), []);
  await predictor.close();
});
