"""Muon (orthogonalised momentum) for the matrices, AdamW for the rest, as one optimizer."""
import torch

from networks import has_bf16


def orthogonalise(g):
    """Newton-Schulz iteration on a batch [n, rows, columns], in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if has_bf16(g.device) else g.float()
    flip = x.shape[1] > x.shape[2]
    if flip:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        m = x @ x.mT
        x = a * x + (b * m + c * m @ m) @ x
    return x.mT if flip else x


class Muon:
    """Matrices (and convolution kernels, flattened to matrices) of one shape are updated together. The update has the
    size of an AdamW update (0.2 of the learning rate, root mean square), so one learning rate serves both."""

    def __init__(self, named, adam_only=(), weight_decay=0.01, momentum=0.95, adam_scale=1.0, betas=(0.9, 0.98)):
        self.groups, rest = {}, []
        for name, p in named:
            if p.ndim >= 2 and not any(word in name for word in adam_only):
                self.groups.setdefault((p.shape[0], p[0].numel()), []).append(p)
            else:
                rest.append(p)
        self.momentum, self.weight_decay, self.adam_scale = momentum, weight_decay, adam_scale
        self.buffers = {shape: [torch.zeros_like(p) for p in ps] for shape, ps in self.groups.items()}
        self.adam = torch.optim.AdamW(rest, lr=1e-3, betas=betas, weight_decay=0.0, eps=1e-10,
                                      fused=rest[0].is_cuda)

    @torch.no_grad()
    def step(self, lr):
        for group in self.adam.param_groups:
            group["lr"] = lr * self.adam_scale
        self.adam.step()
        for shape, params in self.groups.items():
            grads, buffers = [p.grad for p in params], self.buffers[shape]
            torch._foreach_lerp_(buffers, grads, 1 - self.momentum)
            mixed = torch._foreach_lerp(grads, buffers, self.momentum)
            update = orthogonalise(torch.stack([m.reshape(shape) for m in mixed]))
            scale = 0.2 * max(shape) ** 0.5
            torch._foreach_mul_(params, 1 - lr * self.weight_decay)
            torch._foreach_add_(params, [u.reshape(p.shape).to(p.dtype) for u, p in zip(update, params)],
                                alpha=-lr * scale)

    def zero_grad(self):
        self.adam.zero_grad(set_to_none=True)
        for params in self.groups.values():
            for p in params:
                p.grad = None

    def state_dict(self):
        return {"adam": self.adam.state_dict(), "buffers": self.buffers}

    def load_state_dict(self, state):
        self.adam.load_state_dict(state["adam"])
        for shape, buffers in state["buffers"].items():
            for mine, theirs in zip(self.buffers[shape], buffers):
                mine.copy_(theirs)


class Average:
    """Exponential moving average of parameters."""

    def __init__(self, params, decay):
        self.params, self.decay = list(params), decay
        self.shadow = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self, step):
        torch._foreach_lerp_(self.shadow, self.params, 1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def swap(self):
        """Exchanges the averaged and the current values."""
        for p, s in zip(self.params, self.shadow):
            keep = p.detach().clone()
            p.copy_(s)
            s.copy_(keep)


def schedule(done, warmup=0.02, flat=0.5, end=0.0):
    """Learning-rate factor for the fraction `done` of the time: up, flat, down to `end` in a straight line."""
    if done < warmup:
        return done / warmup + 0.01
    return min(1.0, end + (1 - end) * max(0.0, (1 - done) / (1 - flat)))
