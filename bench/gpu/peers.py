"""Times the networks of diffusers and transformers, stage by stage and from token ids to pixels in 8 steps.

    peers.py --model FOLDER --out DIR eager       bf16, as the libraries run it
    peers.py --model FOLDER --out DIR compiled    bf16, torch.compile
    peers.py --model FOLDER --out DIR fp8         products of the blocks in fp8 with scales of rows, torch.compile

torch.compile uses "max-autotune-no-cudagraphs" for the joint blocks of the transformer, and the default mode for its
refiners, the layers of the text encoder and the decoder, all with static shapes. In fp8 Inductor tries only Triton's largest
tiles: the best ones were among them, and all 105 candidates take 85 s for each of six products. Where the forward pass of
the transformer can be captured, it is also timed as one CUDA graph, and images are made with whichever is faster. Attention:
the library's default for eager, else cuDNN's or the default, whichever is faster. FOLDER is a model folder of the sizes to be
timed; its weights may be random.
"""

import functools
import itertools
import re

import harness
import torch
from torch._inductor import select_algorithm

STEPS = 8
MODE = "max-autotune-no-cudagraphs"
LARGE_TILES = re.compile("BLOCK_K=128, BLOCK_M=(128, BLOCK_N=256|64, BLOCK_N=256|256, BLOCK_N=128),")


def capture(evaluate):
    """The evaluation as one CUDA graph, after two runs that warm up."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            evaluate()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = evaluate()

    def replay():
        graph.replay()
        return result

    return replay


class Step:
    """One forward pass on inputs at fixed addresses."""

    def __init__(self, model, size, device):
        self.model, self.replay = model, None
        self.latents, self.caption = harness.random_inputs(model.config, size, device)
        self.t = torch.full((1,), 0.5, device=device)

    def evaluate(self):
        return harness.evaluate(self.model, self.latents, self.t, self.caption)

    def capture(self):
        return capture(self.evaluate)

    def run(self):
        return self.replay() if self.replay else self.evaluate()


def sigmas():
    base = torch.linspace(1, 1 / STEPS, STEPS)
    return torch.cat([3 * base / (1 + 2 * base), torch.zeros(1)]).tolist()


def image(ids, encode, step, decode, noise):
    """From token ids in host memory to pixels in host memory."""
    step.caption.copy_(encode(ids.to(noise.device)))
    latents, schedule = noise, sigmas()
    for sigma, following in itertools.pairwise(schedule):
        step.latents.copy_(latents)
        step.t.fill_(1 - sigma)
        latents = latents + (sigma - following) * step.run()
    return decode(latents).cpu()


def encoder(model):
    return lambda ids: model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-2][0]


def decoder(model):
    c = model.config

    def decode(latents):
        x = (latents[None] / c.scaling_factor + c.shift_factor).bfloat16()
        return ((model.decode(x, return_dict=False)[0][0] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)

    return decode


def choose_attention(model, step, a):
    """Sets attention to cuDNN's if that is faster than the default; returns its name."""
    if torch.device(a.device).type != "cuda":
        return "native"
    default = harness.seconds(step.evaluate, a.device, 3)
    model.set_attention_backend("_native_cudnn")
    cudnn = harness.attempt(a.out, "cuDNN's attention", harness.seconds, step.evaluate, a.device, 3)
    if cudnn is not None and cudnn < default:
        return "cudnn"
    model.set_attention_backend("native")
    return "native"


def large_tiles(choices):
    """Inductor's candidates without Triton's products of small tiles."""
    return [c for c in choices if "BLOCK_M" not in c.description or LARGE_TILES.search(c.description)]


def compile_blocks(model):
    """The joint blocks are nearly all of the work; the default mode saves minutes of tuning for the refiners."""
    for layer in model.layers:
        layer.compile(mode=MODE, fullgraph=True, dynamic=False)
    for layer in [*model.noise_refiner, *model.context_refiner]:
        layer.compile(fullgraph=True, dynamic=False)


def time_step(step, size, a, attention, what="step"):
    def report(how, run):
        taken = harness.seconds(run, a.device, a.repeats)
        harness.record(a.out, "time", who=f"torch {a.variant}{how}", what=f"{what} {size}", seconds=taken, attention=attention)
        return taken

    plain = report("", step.evaluate)
    if torch.device(a.device).type == "cuda":
        replay = harness.attempt(a.out, f"a graph of {a.variant} {size}", step.capture)
        if replay is not None and report(" graph", replay) < plain:
            step.replay = replay
    return step


def main():
    p = harness.parser(__doc__)
    p.add_argument("--model", required=True)
    p.add_argument("variant", choices=("eager", "compiled", "fp8"))
    a = p.parse_args()
    with torch.inference_mode():
        time_networks(a)


def time_networks(a):
    compiled = a.variant != "eager"
    torch._dynamo.config.recompile_limit = 64
    model = harness.load_transformer(a.model, torch.bfloat16, a.device)
    attention = choose_attention(model, Step(model, a.sizes[0], a.device), a) if compiled else "native"
    if a.variant == "fp8":
        harness.use_fp8(model)
        select_algorithm.add_preprocessing_fn(large_tiles)
    if compiled:
        compile_blocks(model)
    steps = {}
    for size in a.sizes:
        steps[size] = harness.attempt(a.out, f"{a.variant} step {size}", time_step, Step(model, size, a.device), size, a, attention)
        if steps[size] is None and attention == "cudnn":
            attention = "native"
            model.set_attention_backend(attention)
            torch._dynamo.reset()
            steps[size] = harness.attempt(a.out, f"{a.variant} step {size}", time_step, Step(model, size, a.device), size, a, attention)

    vae = harness.load_vae(a.model, torch.bfloat16, a.device)
    text = harness.load_text_encoder(a.model, torch.bfloat16, a.device)
    if compiled:
        vae = vae.to(memory_format=torch.channels_last)
        vae.decoder.compile(dynamic=False)
        for layer in text.layers:
            layer.compile(dynamic=False)
    encode, decode = encoder(text), decoder(vae)
    ids = torch.arange(harness.CAPTION_TOKENS)[None] * 7919 % text.config.vocab_size
    on_device = ids.to(a.device)

    def report(what, run, clock=harness.seconds):
        arguments = (run, a.repeats) if clock is harness.wall_seconds else (run, a.device, a.repeats)
        taken = harness.attempt(a.out, f"{a.variant} {what}", clock, *arguments)
        if taken is not None:
            harness.record(a.out, "time", who=f"torch {a.variant}", what=what, seconds=taken)

    report("text", lambda: encode(on_device))
    for size in a.sizes:
        noise = torch.randn(model.config.in_channels, size // 8, size // 8, device=a.device)
        report(f"decode {size}", lambda noise=noise: decode(noise))
        if steps[size]:
            make = functools.partial(image, ids, encode, steps[size], decode, noise)
            report(f"pixels {size}", make, harness.wall_seconds)
    if torch.device(a.device).type == "cuda":
        harness.record(a.out, "memory", who=f"torch {a.variant}", bytes=torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
