"""The three networks of the `emoji` model, in batched PyTorch that trains fast.

They compute exactly what diffusers' ZImageTransformer2DModel and AutoencoderKL and transformers' Qwen3 compute, with the
same parameter names; `check_networks.py` holds them against those. Only what the bundled model needs is here: pictures of
one size and captions of one padded length per batch.
"""
import math
import os

import torch
import torch.nn.functional as F
from torch import nn

TEXT = dict(vocab_size=5120, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64, rms_norm_eps=1e-6, rope_theta=1000000.0)
# Pixels of a latent, each way. 16 makes a picture of 256 x 256 64 tokens instead of 256: training sees about three times as
# many pictures in the same time, for an autoencoder that has to compress twice as much.
REDUCTION = int(os.environ.get("EMOJI_REDUCTION", "16"))
VAE = {8: dict(block_out_channels=[64, 96, 96, 96], layers_per_block=1, latent_channels=16, norm_num_groups=8),
       16: dict(block_out_channels=[64, 80, 96, 80, 80], layers_per_block=1, latent_channels=32, norm_num_groups=8)}[REDUCTION]
SIZE = 256  # pixels of a picture, each way
SIDE = SIZE // REDUCTION  # latents of a picture, each way
TRANSFORMER = dict(in_channels=VAE["latent_channels"], dim=384, n_layers=6, n_refiner_layers=1, n_heads=6, norm_eps=1e-5, cap_feat_dim=256,
                   rope_theta=256.0, t_scale=1000.0, axes_dims=[16, 24, 24], axes_lens=[1536, 512, 512])
SHIFT = 3.0
STEPS = 8


def has_bf16(device):
    """Whether the device multiplies matrices of bf16 faster than others: GPUs, and CPUs with AMX."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()


def rms(x, weight, eps):
    f = x.float()
    return (f * torch.rsqrt(f.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return rms(x, self.weight, self.eps)


# ---- text encoder (Qwen3) ------------------------------------------------------------------------------------------
class QwenAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, d = c["hidden_size"], c["head_dim"]
        self.heads, self.kv_heads, self.head_dim = c["num_attention_heads"], c["num_key_value_heads"], d
        self.q_proj = nn.Linear(h, self.heads * d, bias=False)
        self.k_proj = nn.Linear(h, self.kv_heads * d, bias=False)
        self.v_proj = nn.Linear(h, self.kv_heads * d, bias=False)
        self.o_proj = nn.Linear(self.heads * d, h, bias=False)
        self.q_norm = RMSNorm(d, c["rms_norm_eps"])
        self.k_norm = RMSNorm(d, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        b, s, _ = x.shape

        def rotate(v):  # half-split pairing
            f = v.float()
            first, second = f.chunk(2, -1)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(v.dtype)

        q = rotate(self.q_norm(self.q_proj(x).view(b, s, self.heads, -1)))
        k = rotate(self.k_norm(self.k_proj(x).view(b, s, self.kv_heads, -1)))
        v = self.v_proj(x).view(b, s, self.kv_heads, -1)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class QwenMLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class QwenLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = QwenAttention(c)
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = QwenMLP(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class QwenModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(QwenLayer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class TextEncoder(nn.Module):
    """Returns hidden_states[-2]: the last layer and the final norm exist in the file but are never used."""

    def __init__(self, c=TEXT):
        super().__init__()
        self.model = QwenModel(c)
        self.config = c
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02 if "embed" in name else p.shape[1] ** -0.5)
        for layer in self.model.layers:
            for p in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                p.data.mul_(0.3)
        self.model.embed_tokens.weight.data.mul_(10)

    def forward(self, ids):
        d, s = self.config["head_dim"], ids.shape[1]
        inv = self.config["rope_theta"] ** (-torch.arange(0, d, 2, device=ids.device).float() / d)
        angle = torch.arange(s, device=ids.device).float()[:, None] * inv
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        x = self.model.embed_tokens(ids)
        if torch.is_autocast_enabled(ids.device.type):
            x = x.bfloat16()
        for layer in self.model.layers[:-1]:
            x = layer(x, cos, sin)
        return x


# ---- transformer (Z-Image) -----------------------------------------------------------------------------------------
class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim, bias=False)])
        self.norm_q = RMSNorm(dim // heads, 1e-5)
        self.norm_k = RMSNorm(dim // heads, 1e-5)

    def forward(self, x, cos, sin):
        b, s, _ = x.shape

        def rotate(v):  # adjacent pairs
            even, odd = v.float().unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(v.dtype)

        # One product for the three: its input is read once, and its gradient written once.
        weights = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        q, k, v = F.linear(x, weights).view(b, s, 3, self.heads, -1).unbind(2)
        q, k, v = rotate(self.norm_q(q)).transpose(1, 2), rotate(self.norm_k(k)).transpose(1, 2), v.transpose(1, 2)
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        hidden = int(dim / 3 * 8)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        gate, up = F.linear(x, torch.cat([self.w1.weight, self.w3.weight])).chunk(2, -1)
        return self.w2(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, c, modulated=True):
        super().__init__()
        dim, eps = c["dim"], c["norm_eps"]
        self.attention = Attention(dim, c["n_heads"])
        self.feed_forward = FeedForward(dim)
        self.attention_norm1 = RMSNorm(dim, eps)
        self.attention_norm2 = RMSNorm(dim, eps)
        self.ffn_norm1 = RMSNorm(dim, eps)
        self.ffn_norm2 = RMSNorm(dim, eps)
        self.modulated = modulated
        if modulated:
            self.adaLN_modulation = nn.Sequential(nn.Linear(min(dim, 256), 4 * dim))

    def forward(self, x, cos, sin, a=None):
        if not self.modulated:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), cos, sin))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        s1, g1, s2, g2 = self.adaLN_modulation(a).unsqueeze(1).chunk(4, -1)
        x = x + g1.tanh() * self.attention_norm2(self.attention(self.attention_norm1(x) * (1 + s1), cos, sin))
        return x + g2.tanh() * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * (1 + s2)))


class TimestepEmbedder(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, 1024), nn.SiLU(), nn.Linear(1024, out))

    def forward(self, t):
        f = torch.exp(-math.log(10000) * torch.arange(128, device=t.device, dtype=torch.float32) / 128)
        args = t[:, None].float() * f
        return self.mlp(torch.cat([args.cos(), args.sin()], -1))


class FinalLayer(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(min(dim, 256), dim))

    def forward(self, x, a):
        x = F.layer_norm(x.float(), x.shape[-1:], eps=1e-6)
        return self.linear(x * (1 + self.adaLN_modulation(a).unsqueeze(1)))


class Transformer(nn.Module):
    def __init__(self, c=TRANSFORMER):
        super().__init__()
        dim, patch = c["dim"], 4 * c["in_channels"]
        self.config = c
        self.all_x_embedder = nn.ModuleDict({"2-1": nn.Linear(patch, dim)})
        self.all_final_layer = nn.ModuleDict({"2-1": FinalLayer(dim, patch)})
        self.noise_refiner = nn.ModuleList(Block(c) for _ in range(c["n_refiner_layers"]))
        self.context_refiner = nn.ModuleList(Block(c, False) for _ in range(c["n_refiner_layers"]))
        self.t_embedder = TimestepEmbedder(min(dim, 256))
        self.cap_embedder = nn.Sequential(RMSNorm(c["cap_feat_dim"], c["norm_eps"]), nn.Linear(c["cap_feat_dim"], dim))
        self.x_pad_token = nn.Parameter(torch.zeros(1, dim))
        self.cap_pad_token = nn.Parameter(torch.zeros(1, dim))
        self.layers = nn.ModuleList(Block(c) for _ in range(c["n_layers"]))
        self.tables = {}
        # Pictures of half the side are trained with spread 2: token i lies in the middle of the tokens 2 i and 2 i + 1 that
        # cover the same part of the full picture.
        self.spread = 1
        self.initialise()

    def initialise(self):
        dim = self.config["dim"]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.cap_pad_token, std=0.5)
        nn.init.normal_(self.t_embedder.mlp[2].weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Block) and module.modulated:  # nearly the identity at first, whatever the timestep
                nn.init.zeros_(module.adaLN_modulation[0].weight)
                module.adaLN_modulation[0].bias.data.view(4, dim)[1::2] = 0.2
            elif isinstance(module, Block):
                module.attention_norm2.weight.data.fill_(0.5)
                module.ffn_norm2.weight.data.fill_(0.5)
            elif isinstance(module, FinalLayer):
                nn.init.zeros_(module.linear.weight)
                nn.init.zeros_(module.adaLN_modulation[1].weight)

    def rope(self, caption, height, width, device):
        """cos and sin [tokens, 1, head_dim / 2] of the image tokens (padded, see forward), the caption tokens, and both (image
        first)."""
        key = (caption, height, width, self.spread, device)
        if key not in self.tables:
            c = self.config
            rows, columns = (torch.arange(side) * float(self.spread) + (self.spread - 1) / 2 for side in (height, width))
            image = torch.stack(torch.meshgrid(torch.tensor([caption + 1.0]), rows, columns, indexing="ij"), -1).view(-1, 3)
            image = F.pad(image, (0, 0, 0, -len(image) % 32))
            text = torch.stack([torch.arange(1, caption + 1), torch.zeros(caption), torch.zeros(caption)], -1)
            ids = torch.cat([image, text]).double()
            angles = []
            for axis, d in enumerate(c["axes_dims"]):
                w = c["rope_theta"] ** (-torch.arange(0, d, 2).double() / d)
                angles.append((ids[:, axis:axis + 1] * w).float())
            angles = torch.cat(angles, -1)[:, None].to(device)
            self.tables[key] = angles.cos(), angles.sin()
        cos, sin = self.tables[key]
        n = len(cos) - caption
        return (cos[:n], sin[:n]), (cos[n:], sin[n:]), (cos, sin)

    def refine(self, captions, lengths):
        """Caption tokens [B, S, dim]; captions [B, S, 256], S a multiple of 32; lengths [B]: real tokens."""
        e = self.cap_embedder(captions)
        e = torch.where((torch.arange(e.shape[1], device=e.device) < lengths[:, None])[..., None], e,
                        self.cap_pad_token.to(e.dtype))
        _, text_rope, _ = self.rope(e.shape[1], 0, 0, e.device)
        for block in self.context_refiner:
            e = block(e, *text_rope)
        return e

    def forward(self, x, t, e):
        """x [B, C, h, w]; t [B] = 1 - sigma; e: what refine() returned."""
        b, ch, h, w = x.shape
        image_rope, _, rope = self.rope(e.shape[1], h // 2, w // 2, x.device)
        a = self.t_embedder(t * self.config["t_scale"])
        tokens = x.view(b, ch, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * ch)
        u = self.all_x_embedder["2-1"](tokens)
        n, padding = u.shape[1], -u.shape[1] % 32
        if padding:
            u = torch.cat([u, self.x_pad_token.to(u.dtype).expand(b, padding, -1)], 1)
        for block in self.noise_refiner:
            u = block(u, *image_rope, a)
        u = torch.cat([u, e], 1)
        for block in self.layers:
            u = block(u, *rope, a)
        out = self.all_final_layer["2-1"](u[:, :n], a)
        return out.view(b, h // 2, w // 2, 2, 2, ch).permute(0, 5, 1, 3, 2, 4).reshape(b, ch, h, w)


def compile_blocks(*models):
    """Compiles the repeated blocks only: one graph per shape instead of one per layer, in seconds instead of minutes."""
    for model in models:
        for module in model.modules():
            if isinstance(module, (Block, QwenLayer, ResnetBlock)):
                module.compile(dynamic=False)


# ---- autoencoder (AutoencoderKL) -----------------------------------------------------------------------------------
class ResnetBlock(nn.Module):
    def __init__(self, cin, cout, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, 1e-6)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, cout, 1e-6)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.conv_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class MidAttention(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, c, 1e-6)
        self.to_q, self.to_k, self.to_v = nn.Linear(c, c), nn.Linear(c, c), nn.Linear(c, c)
        self.to_out = nn.ModuleList([nn.Linear(c, c)])

    def forward(self, x):
        b, c, h, w = x.shape
        g = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (f(g).unsqueeze(1) for f in (self.to_q, self.to_k, self.to_v))
        o = self.to_out[0](F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + o.transpose(1, 2).reshape(b, c, h, w)


class MidBlock(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(c, c, groups), ResnetBlock(c, c, groups)])
        self.attentions = nn.ModuleList([MidAttention(c, groups)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Sampler(nn.Module):
    def __init__(self, c, up):
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(c, c, 3, padding=1) if up else nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x):
        if self.up:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    def __init__(self, cin, cout, count, groups, sampler):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(cin if i == 0 else cout, cout, groups) for i in range(count))
        if sampler:
            setattr(self, sampler, nn.ModuleList([Sampler(cout, sampler == "upsamplers")]))
        self.sampler = sampler

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        return getattr(self, self.sampler)[0](x) if self.sampler else x


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        ch, groups = c["block_out_channels"], c["norm_num_groups"]
        self.conv_in = nn.Conv2d(3, ch[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(ch[max(i - 1, 0)], ch[i], c["layers_per_block"], groups, "downsamplers" if i < len(ch) - 1 else None)
            for i in range(len(ch)))
        self.mid_block = MidBlock(ch[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, ch[-1], 1e-6)
        self.conv_out = nn.Conv2d(ch[-1], 2 * c["latent_channels"], 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        ch, groups = c["block_out_channels"][::-1], c["norm_num_groups"]
        self.conv_in = nn.Conv2d(c["latent_channels"], ch[0], 3, padding=1)
        self.mid_block = MidBlock(ch[0], groups)
        self.up_blocks = nn.ModuleList(
            Level(ch[max(i - 1, 0)], ch[i], c["layers_per_block"] + 1, groups, "upsamplers" if i < len(ch) - 1 else None)
            for i in range(len(ch)))
        self.conv_norm_out = nn.GroupNorm(groups, ch[-1], 1e-6)
        self.conv_out = nn.Conv2d(ch[-1], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Autoencoder(nn.Module):
    def __init__(self, c=VAE):
        super().__init__()
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)

    def encode(self, x):
        mean, logvar = self.encoder(x).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z):
        return self.decoder(z)


# ---- sampling ------------------------------------------------------------------------------------------------------
def sigmas(steps=STEPS, shift=SHIFT):
    s = torch.linspace(1, 1 / steps, steps)
    return torch.cat([shift * s / (1 + (shift - 1) * s), torch.zeros(1)])


@torch.no_grad()
def sample(text, transformer, ids, lengths, noise, steps=STEPS, shift=SHIFT):
    """Latents of the captions `ids` [B, S] (padded to a multiple of 32), from float32 noise [B, C, h, w]."""
    captions = transformer.refine(text(ids), lengths)
    x = noise.float()
    grid = sigmas(steps, shift).tolist()
    for here, there in zip(grid, grid[1:]):
        t = torch.full((len(x),), 1 - here, device=x.device)
        out = transformer(x, t, captions).float()
        x = x + (there - here) * -out
    return x


def count(module):
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    parts = {"transformer": Transformer(), "text_encoder": TextEncoder(), "vae": Autoencoder()}
    for name, part in parts.items():
        print(f"{name:14s} {count(part):>11,}")
    print(f"{'decoder':14s} {count(parts['vae'].decoder):>11,}")
    total = sum(count(p) for p in parts.values())
    print(f"{'all':14s} {total:>11,} = {2 * total:,} bytes in bf16")
