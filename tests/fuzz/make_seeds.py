#!/usr/bin/env python3
"""Makes the first inputs of the fuzz targets in a folder, and the model folders toy and toy-klein: make_seeds.py FOLDER

They are made of the files in tests/golden, which the formats' libraries wrote, with smaller sizes. libFuzzer grows the
corpora from them (run.sh).
"""
import base64
import json
import pathlib
import struct
import sys
import zlib

here = pathlib.Path(__file__).resolve().parent
golden = here.parent / "golden"
tiny = golden / "tiny"
out = pathlib.Path(sys.argv[1])


def save(target, name, data):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def container(files):
    """Files as container.c reads them."""
    data = b""
    for name, content in files.items():
        if isinstance(content, (dict, list)):
            content = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        content = content if isinstance(content, bytes) else content.encode()
        data += name.encode() + b"\0" + str(len(content)).encode() + b"\n" + content
    return data


def load(path):
    return json.loads((tiny / path).read_text())


# ---- safetensors


def safetensors(header, data=b""):
    text = json.dumps(header, separators=(",", ":"))
    return struct.pack("<Q", len(text)) + text.encode() + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


two = {"a": tensor("F32", [2, 3], 0, 24), "b": tensor("BF16", [4], 24, 32)}
save("safetensors", "two", safetensors(two, bytes(range(32))))
save("safetensors", "metadata", safetensors({"__metadata__": {"format": "pt"}, **two}, bytes(32)))
save("safetensors", "empty", safetensors({}))
save("safetensors", "scalar", safetensors({"x": tensor("F16", [], 0, 2)}, b"\0\x3c"))
save("safetensors", "types", safetensors({t: tensor(t, [n], 8 * i, 8 * i + 8) for i, (t, n) in enumerate(
    [("F64", 1), ("I64", 1), ("U32", 2), ("F8_E4M3", 8), ("BOOL", 8), ("I16", 4), ("F4", 16)])}, bytes(56)))
save("safetensors", "packed", safetensors({
    "x.weight": tensor("U32", [2, 4], 0, 32), "x.scales": tensor("BF16", [2, 1], 32, 36),
    "x.biases": tensor("BF16", [2, 1], 36, 40)}, bytes(40)))
save("safetensors", "lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 24\n")
save("safetensors", "five", safetensors({"x": tensor("F32", [1, 2, 1, 1, 2], 0, 16), "y": tensor("U8", [0], 16, 16)},
                                        bytes(16)))

# ---- a tokenizer of the bytes and a few merges


def byte_character(byte):
    visible = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 256)]
    if byte in visible:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in visible].index(byte))


full = load("tokenizer/tokenizer.json")
merges = full["model"]["merges"][:4]
names = [byte_character(b) for b in range(256)] + ["".join(pair) for pair in merges]
tokenizer = json.loads(json.dumps(full))
tokenizer["model"]["vocab"] = {name: i for i, name in enumerate(names)}
tokenizer["model"]["merges"] = merges
specials = [token for token in full["added_tokens"] if token["content"].startswith("<|")]
tokenizer["added_tokens"] = [{**token, "id": len(names) + i} for i, token in enumerate(specials)]
config = load("tokenizer/tokenizer_config.json")
config["added_tokens_decoder"] = {str(t["id"]): {k: v for k, v in t.items() if k != "id"}
                                  for t in tokenizer["added_tokens"]}
config.pop("chat_template")
template = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {}}
save("tokenizer", "plain", container({"tokenizer.json": tokenizer}))
save("tokenizer", "template", container({"tokenizer.json": {**tokenizer, "post_processor": template}, "@text": "ab c"}))
save("tokenizer", "config", container({"tokenizer.json": tokenizer, "tokenizer_config.json": config,
                                       "@text": "a<|im_end|>b\u00e9 \u4f60 12"}))
plain = {name: i for i, name in enumerate(names)}
save("tokenizer", "vocabulary", container({
    "vocab.json": plain, "merges.txt": "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in merges),
    "tokenizer_config.json": config}))
save("tokenizer", "pairs", container({"tokenizer.json": {
    **tokenizer, "model": {**tokenizer["model"], "merges": [" ".join(pair) for pair in merges]}}}))
save("tokenizer", "pattern", container({"tokenizer.json": {
    **tokenizer, "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]}},
    "@text": "a" * 28}))

# ---- texts

for i, text in enumerate(["a red apple", "Don't STOP,it'S  two   spaces\r\n\r\n x=3.14!", "你好，世界 \U0001f431 café",
                          "e\u0301A\u030a\u1100\u1161\u11a8 \u0344\u0f73", "<|im_start|>user\n<think></think><|im_end|>",
                          "a\u0300\u0316\u0301 \u200d\ufeff\x00\x7f ſ"]):
    save("text", f"toy{i}", bytes([2 * (i % 3)]) + text.encode())
    save("text", f"qwen3-{i}", bytes([1 + 2 * (i % 3)]) + text.encode())
save("text", "invalid", b"\1abc\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80")

# ---- chat templates: those whose golden exercises most, told by their length

templates = sorted({case[0] for case in json.loads((golden / "chat-templates.json").read_text())}, key=lambda t: len(t))
for i in [*range(0, len(templates), 6), len(templates) - 1]:
    if len(templates[i]) <= 4096:
        save("chat", f"golden{i}", templates[i])

# ---- batches

line = {"prompt": "a red apple", "output": "apple.png", "seed": 7}
save("batch", "one", json.dumps(line) + "\n")
save("batch", "two", json.dumps(line) + "\n\n" + json.dumps({**line, "output": "b.png", "width": 64, "height": 64,
                                                            "steps": 4, "guidance": 3.5, "negative": "blurry"}))
save("batch", "mark", "\ufeff" + json.dumps({"prompt": "caf\u00e9 \U0001f431", "output": "x.png",
                                             "seed": 18446744073709551615}, ensure_ascii=False))
save("batch", "options", "--guidance=3\n--steps=5\n--negative=blurry\n" + json.dumps(line) + "\n")
save("batch", "names", json.dumps({"prompt": "x", "negative_prompt": "y", "num_inference_steps": 4, "guidance_scale": 2,
                                   "output": "x.png", "rng": "numpy", "cfg_normalization": 1, "cfg_truncation": 0.5}))
save("batch", "control", json.dumps({"prompt": "\u001b[31mred", "output": "\u001b[2J.png", "\u001b]0;x\u0007": 1}))

# ---- caches

speed = {"linear": 1e11, "attention": 5e10, "conv": 2e10, "unpack": 1e-10}
save("caches", "speed", json.dumps({"KEY": speed}))
save("caches", "others", json.dumps({"Some CPU, avx2, 4 threads, zimage 0.2.0": speed, "KEY": {**speed, "unpack": 0}}))
save("caches", "tiny-speed", json.dumps({"KEY": {**speed, "linear": 1e-320}}))
save("caches", "plans", "GPU\nproduct 6b 01\nproduct 6b6579 0707070707\ngated 6b6579 00\nproduct 6b")
save("caches", "other-gpu", "GPU 2\nproduct 6b 01\n")

# ---- model folders

transformer = load("transformer/config.json")
transformer |= {"dim": 16, "n_heads": 2, "n_kv_heads": 2, "n_layers": 1, "axes_dims": [4, 2, 2], "cap_feat_dim": 8,
                "axes_lens": [256, 16, 16]}
vae = load("vae/config.json") | {"block_out_channels": [4, 8], "norm_num_groups": 2,
                                 "down_block_types": ["DownEncoderBlock2D"] * 2,
                                 "up_block_types": ["UpDecoderBlock2D"] * 2, "sample_size": 32}
text_encoder = load("text_encoder/config.json") | {
    "hidden_size": 8, "head_dim": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12,
    "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "vocab_size": 320}
toy = {"model_index.json": load("model_index.json"),
       "scheduler/scheduler_config.json": load("scheduler/scheduler_config.json"),
       "transformer/config.json": transformer, "vae/config.json": vae, "text_encoder/config.json": text_encoder,
       "tokenizer/tokenizer.json": tokenizer}


def load_klein(path):
    return load("../tiny-klein/" + path)


klein_transformer = load_klein("transformer/config.json") | {
    "attention_head_dim": 16, "axes_dims_rope": [4, 4, 4, 4], "joint_attention_dim": 24, "num_layers": 1,
    "num_single_layers": 1, "timestep_guidance_channels": 8}
klein_vae = load_klein("vae/config.json") | {k: vae[k] for k in [
    "block_out_channels", "norm_num_groups", "down_block_types", "up_block_types", "sample_size"]}
klein_text_encoder = load_klein("text_encoder/config.json") | { # one head: 28 layers read 512 tokens each
    "hidden_size": 8, "head_dim": 4, "num_attention_heads": 1, "intermediate_size": 12, "vocab_size": 320}
klein_tokenizer_config = load_klein("tokenizer/tokenizer_config.json") | {
    "added_tokens_decoder": config["added_tokens_decoder"]}
toy_klein = {"model_index.json": load_klein("model_index.json"),
             "scheduler/scheduler_config.json": load_klein("scheduler/scheduler_config.json"),
             "transformer/config.json": klein_transformer, "vae/config.json": klein_vae,
             "text_encoder/config.json": klein_text_encoder, "tokenizer/tokenizer.json": tokenizer,
             "tokenizer/tokenizer_config.json": klein_tokenizer_config}
for folder, files in {"toy": toy, "toy-klein": toy_klein}.items(): # the inputs below hold what differs from these
    for name, content in files.items():
        path = here / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=None if "tokenizer" in name else 1, ensure_ascii=False) + "\n")


def change(kind, which, a, b=0):
    return bytes([kind if isinstance(kind, int) else ord(kind), which, a, b])


every = 255
conversion = {"model_index.json": "", "scheduler/scheduler_config.json": ""} # lacks both
save("folder", "toy", container({"@options": b"\0"}))
save("folder", "transformer", container({"transformer/config.json": transformer}))
save("folder", "text-encoder", container({"text_encoder/config.json": text_encoder}))
save("folder", "vae", container({"vae/config.json": vae, "model_index.json": toy["model_index.json"]}))
save("folder", "conversion", container({**conversion, "@transformer": change("L", 0, 0)}))
save("folder", "mflux", container({**conversion, "@transformer": change("L", 0, 1), "@vae": change("L", 0, 2)}))
save("folder", "packed", container({**conversion, "@transformer": change(6, every, 0), "@options": b"\1"}))
save("folder", "shards", container({"@transformer": change("S", 0, 0)}))
save("folder", "own-weights", container({"vae/diffusion_pytorch_model.safetensors": safetensors(two, bytes(32))}))
save("folder", "own-index", container({
    "transformer/diffusion_pytorch_model.safetensors.index.json":
    {"metadata": {"total_size": 32}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors"}},
    "transformer/1.safetensors": safetensors(two, bytes(32))}))
save("folder", "types", container({"@transformer": change(0, every, 2) + change(0, 3, 9),
                                   "@vae": change(0, every, 1) + change(1, 2, 0) + change(2, 5, 65)}))
klein = {"@klein": "1"}
klein_layouts = 128
kv = toy_klein["model_index.json"] | {"_class_name": "Flux2KleinKVPipeline"}
mflux_klein = {"@transformer": change("L", 0, klein_layouts), "@vae": change("L", 0, klein_layouts + 1)}
save("folder", "klein", container(klein))
save("folder", "klein-kv", container({**klein, "model_index.json": kv}))
save("folder", "klein-transformer", container({**klein, "transformer/config.json": klein_transformer}))
save("folder", "klein-text-encoder", container({**klein, "text_encoder/config.json": klein_text_encoder}))
save("folder", "klein-vae", container({**klein, "vae/config.json": klein_vae}))
save("folder", "klein-tokenizer", container({**klein, "tokenizer/tokenizer_config.json": klein_tokenizer_config}))
save("folder", "klein-mflux", container({**klein, **conversion, **mflux_klein}))
base = load("../tiny-base/scheduler/scheduler_config.json")
save("folder", "dynamic", container({"scheduler/scheduler_config.json": base}))

# ---- images: columns, rows, steps, compute type, mask, guidance, flags, rng, dequantize, prompt


def request(*values, prompt="a red apple"):
    return bytes(values) + prompt.encode()


wide = transformer | {"dim": 64, "axes_dims": [8, 12, 12], "cap_feat_dim": 32}
for i, (asked, changes) in enumerate([
        (request(0, 1, 1, 0, 0, 0, 0, 0, 0), {}),
        (request(1, 1, 0, 1, 0, 3, 7, 1, 0), {"@transformer": change(0, every, 2)}),
        (request(3, 0, 1, 2, 0, 5, 10, 2, 0), {"@transformer": change(0, every, 1), "@vae": change(0, every, 2)}),
        (request(0, 2, 0, 3, 3, 0, 48, 3, 0), {"@transformer": change(4, 9, 1, 3)}),
        (request(1, 0, 0, 0, 4, 7, 32, 0, 1), {"@vae": change(4, 4, 2, every), "@text_encoder": change(4, 2, 4, 1)}),
        (request(2, 3, 0, 1, 5, 1, 1, 1, 2, prompt=""), {"@text_encoder": change(0, every, 2)})]):
    save("generate", str(i), container({**changes, "@request": asked}))
for i, bits in enumerate(range(8)):
    save("generate", f"packed{i}", container({
        **conversion, "transformer/config.json": wide, "text_encoder/config.json": text_encoder | {"hidden_size": 32},
        "@transformer": change(6, every, bits, i % 2), "@request": request(0, 0, 0, i % 3, 3 * (i % 2), 0, 0, 0, i % 3)}))
save("generate", "mflux", container({**conversion, "@transformer": change("L", 0, 1), "@vae": change("L", 0, 2),
                                     "@request": request(0, 0, 0, 0, 0, 0, 0, 0, 0)}))
save("generate", "vae", container({"vae/config.json": vae, "@request": request(1, 1, 1, 1, 0, 0, 0, 0, 0)}))
save("generate", "dynamic", container({"scheduler/scheduler_config.json": base,
                                       "@request": request(1, 0, 2, 0, 0, 3, 8, 0, 0)}))

packed_klein = {
    **klein, **conversion, "transformer/config.json": klein_transformer | {
        "attention_head_dim": 32, "axes_dims_rope": [8, 8, 8, 8], "joint_attention_dim": 96},
    "text_encoder/config.json": klein_text_encoder | {"hidden_size": 32}}
image, mask = 64, 128 # flags
for name, flags, changes in [
        ("text", 0, klein), ("reference", image, klein), ("mask", image + mask, klein),
        ("kv", image, {**klein, "model_index.json": kv}),
        ("base", 2 + image, {**klein, "model_index.json": toy_klein["model_index.json"] | {"is_distilled": False}}),
        ("mflux", image, {**klein, **conversion, **mflux_klein}),
        ("packed", image + mask, {**packed_klein, "@transformer": change(6, every, 0)}),
        ("infinite", image, {**klein, "@vae": change(4, 4, 2, every)})]:
    save("generate", f"klein-{name}", container({**changes, "@request": request(1, 0, 1, 1, 0, 3, flags, 0, 0)}))
save("generate", "image", container({"@request": request(1, 1, 1, 0, 0, 0, image, 0, 0)}))
save("generate", "mask", container({"@request": request(1, 1, 1, 1, 0, 3, image + mask, 0, 0)}))

# ---- images


def png(kind, depth, width, height, interlaced=0, chunks=()):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] * depth
    rows = b"".join(b"\0" + bytes((7 * y + x) % 256 for x in range((width * bits + 7) // 8)) for y in range(height))
    if interlaced:
        rows = bytes(2 * len(rows) + 64)
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))
    if kind == 3:
        body += chunk(b"PLTE", bytes(range(48)))
    body += b"".join(chunk(*pair) for pair in chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


for kind, depth in [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 2), (3, 4), (4, 8), (4, 16), (6, 8), (6, 16)]:
    save("image", f"{kind}-{depth}", png(kind, depth, 5, 4))
save("image", "interlaced", png(2, 8, 9, 9, 1))
save("image", "chunks", png(3, 4, 4, 4, 0, [
    (b"tRNS", b"\0\x80"), (b"gAMA", struct.pack(">I", 45455)), (b"tEXt", b"prompt\0apple"), (b"zTXt", b"k\0\0" + zlib.compress(
        b"text")), (b"iTXt", b"k\0\0\0\0\0caf\xc3\xa9"), (b"pHYs", bytes(9)), (b"bKGD", b"\1")]))
save("image", "profile", png(6, 8, 3, 3, 0, [(b"iCCP", b"p\0\0" + zlib.compress(bytes(200))), (b"sRGB", b"\0"),
                                           (b"cHRM", bytes(32)), (b"sBIT", b"\5\5\5\5")]))

# PNG, JPEG and WebP files that Pillow wrote
content = (golden / "images.safetensors").read_bytes()
header = 8 + struct.unpack("<Q", content[:8])[0]
for name, entry in json.loads(content[8:header]).items():
    if name.endswith(".file"):
        begin, end = entry["data_offsets"]
        save("image", name[: -len(".file")], content[header + begin : header + end])

# ---- requests to the server: the first byte of a body chooses the dialect, the second one of a form how it is cut

generate, edit, job, txt2img, img2img, options = range(6)
picture = png(2, 8, 5, 4)
inline = base64.b64encode(picture).decode()
asked = {"prompt": "a red apple", "size": "64x64", "steps": 2, "seed": 7}
for name, dialect, body in [
        ("small", generate, asked),
        ("all", generate, {**asked, "n": 2, "model": "emoji", "quality": "low", "response_format": "url",
                           "output_format": "jpeg", "output_compression": 50, "background": "opaque", "stream": True,
                           "partial_images": 3, "user": "ann", "style": "vivid", "moderation": "low", "rng": "numpy",
                           "priority": "batch", "embed_recipe": False, "progress": True, "guidance": 0}),
        ("names", generate, {"prompt": "x", "num_inference_steps": 2, "guidance_scale": 0, "generator_device": "cuda",
                             "safety_identifier": "ann", "embed_image_metadata": True, "seed": "18446744073709551615"}),
        ("refused", generate, {"prompt": "x", "url": "http://127.0.0.1/", "complexity": 1, "loras": [{"name": "a"}]}),
        ("edit", edit, {**asked, "image": [inline], "mask": inline, "strength": 0.5}),
        ("job", job, {**asked, "image[]": "data:image/png;base64," + inline}),
        ("txt2img", txt2img, {"prompt": "x", "width": 64, "height": 64, "steps": 50, "cfg_scale": 7, "batch_size": 2,
                              "n_iter": 1, "override_settings": {"sd_model_checkpoint": "emoji", "a": [1]}}),
        ("img2img", img2img, {"prompt": "x", "init_images": [inline], "mask": inline, "inpainting_mask_invert": 1,
                              "denoising_strength": 0.75}),
        ("options", options, {"sd_model_checkpoint": "emoji", "samples_format": "png"})]:
    save("fields", name, bytes([dialect]) + json.dumps(body).encode())


def form(parts):
    body = b""
    for name, value, *file in parts:
        more = b'; filename="%s"\r\nContent-Type: application/octet-stream' % file[0] if file else b""
        body += b'--bb\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name, more, value)
    return body + b"--bb--\r\n"


texts = [(b"prompt", b"a red apple"), (b"size", b"64x64"), (b"steps", b"2"), (b"embed_recipe", b"True"),
         (b"seed", b"-1")]
for name, dialect, parts in [
        ("texts", job, texts),
        ("image", edit, texts + [(b"image", picture, b"a.png"), (b"mask", picture, b"m.png")]),
        ("images", edit, [*texts[:1], (b"image[]", picture, b"upload"), (b"image[]", picture, b"")]),
        ("twice", job, texts + texts[:1]),
        ("bytes", edit, [(b"prompt", b"\xff\xfe"), (b"strength", b"0.5"), (b"image", b"<svg></svg>", b"a.svg")])]:
    save("form", name, bytes([dialect, len(name)]) + form(parts))
mixed = b"--bb\r\nContent-Disposition: form-data; name=image\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" \
    b"--c\r\nContent-Disposition: file; filename=a\r\n\r\nx\r\n--c--\r\n--bb--\r\n"
save("form", "mixed", bytes([job, 7]) + mixed)

for i, text in enumerate([b"", b"QQ==", b"QUI=", b"QUJD", b"QUJD\r\nREVG", b"QQ", b"Q=Q=", b"+/+/", b"A\0==", b"===="]):
    save("base64", str(i), text)

basic = b"Basic " + base64.b64encode(b"ann:the-key")
for i, lines in enumerate([
        [b"localhost:8421", b"", b"", b"Bearer the-key"],
        [b"127.0.0.1:8421", b"http://127.0.0.1:8421", b"same-origin", basic],
        [b"[::1]:8421", b"null", b"cross-site", b"Bearer the-key-"], [b"images.example:443", b"https://friend.example"],
        [b"127.0.0.1.evil.example", b"https://evil.example", b"same-site", b"Basic !!"], [b"[::1", b"://"]]):
    save("policy", str(i), b"\n".join(lines))

for i, request in enumerate([
        "GET /health", "HEAD /", "POST /v1/images/generations", "GET /v1/models/org%2Fz%20image", "PUT /zimage/v1/jobs",
        "GET /zimage/v1/jobs/abc/events", "GET /zimage/v1/jobs/abc/pictures/0", "DELETE /zimage/v1/jobs/%00",
        "GET /assets/..%2f..%2fetc", "GET /v1/files/../../etc/passwd", "GET /v1/models/%zz"]):
    save("route", str(i), request)

words = "zimage words 1\n=\ta\ton\nautomobile\t自動車\tAuto\t~car\nred apple\t~apple\n"
for i, (names, prompt) in enumerate([(words, "a car on an autmobile"), (words, "Apple 自動車 3 cars"), ("zimage words 1\n~x\n", ""),
                                     ("zimage words 1\nÉlan\tΣ\n", "élan elan"), ("zimage words 2\n", "x")]):
    save("words", str(i), f"{names}\0{prompt}")

own = {"recipe": 1, "prompt": "a red apple", "seed": 7, "rng": "torch-cpu", "size": "64x64", "steps": 8}
parameters = "a red apple\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x768, " \
    "Model: emoji, Denoising strength: 0.5, Version: v1.10.1"
graph = {"3": {"inputs": {"seed": 7, "steps": 20, "cfg": 7.5, "denoise": 1, "model": ["4", 0],  "positive": ["6", 0],
                          "negative": ["7", 0], "latent_image": ["5", 0]}},
         "4": {"inputs": {"ckpt_name": "a.safetensors"}}, "5": {"inputs": {"width": 512, "height": 768}},
         "6": {"inputs": {"text": ["8", 0], "conditioning": ["8", 0]}}, "7": {"inputs": {"text": "blurry"}},
         "8": {"inputs": {"text": "a red apple"}}}
for kind in range(3):
    save("recipe", f"own{kind}", bytes([kind, 0]) + json.dumps(own).encode())
    save("recipe", f"parameters{kind}", bytes([kind, 1]) + parameters.encode())
    save("recipe", f"graph{kind}", bytes([kind, 2]) + json.dumps(graph).encode())
save("recipe", "all", b"\0\0{}\0\1" + parameters.encode() + b"\0\2" + json.dumps(graph).encode())

commit, sha256 = "0123456789abcdef" * 2 + "01234567", "0123456789abcdef" * 4
tree = [{"type": "directory", "path": "vae", "size": 0, "oid": commit},
        {"type": "file", "path": "vae/config.json", "size": 5, "oid": commit},
        {"type": "file", "path": "transformer/a.safetensors", "size": 134, "oid": commit,
         "lfs": {"oid": sha256, "size": 5000000000, "pointerSize": 134}},
        {"type": "file", "path": "pipeline.py", "size": 5, "oid": commit}]
modelscope = {"Code": 200, "Data": {"Files": [
    {"Path": "vae/config.json", "Name": "config.json", "Type": "blob", "Size": 5, "Sha256": sha256},
    {"Path": "vae", "Name": "vae", "Type": "tree", "Size": 0, "Sha256": ""}]}}
save("hub", "revision", "R" + json.dumps({"sha": commit, "gated": "auto", "cardData": {"license": "apache-2.0"}}))
save("hub", "page", "R<!DOCTYPE html><p>Log in")
save("hub", "tree", "T" + json.dumps(tree))
save("hub", "twice", "T" + json.dumps(tree + tree))
save("hub", "modelscope", "M" + json.dumps(modelscope))
for i, path in enumerate(["../x", "a/../../b", "/etc/passwd", "a\\b", "a\0b", "a\x1b[31m", "a//b", "x" * 513]):
    save("hub", f"path{i}", "T" + json.dumps([{"type": "file", "path": path, "size": 5, "oid": commit}]))
save("hub", "size", "T" + json.dumps([{"type": "file", "path": "vae/LICENSE", "size": 2**63, "oid": commit}]))
for i, text in enumerate(["Iacme/tiny@refs/pr/1", "I../..@..", f'W/"{sha256}"', "bytes 0-99/1000", "bytes 5-4/3",
                          '<https://a/x,y>; rel="prev", <https://a/b?c=1>; rel="next"', '"api";r=0;t=55',
                          '"api";r=0;t=99999999999999999999']):
    save("hub", f"text{i}", text)
