"""The model of jaxsplit in PyTorch, as one would write it there, for against_torch.py and experiment.py: trains what
it is told to, and times it.

Reads lines of JSON from standard input, answers each with one: first the model and where its weights are, then blocks of steps, or
of steps' matrix products alone. Needs torch and numpy alone.
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):

  def __init__(self, width):
    super().__init__()
    self.scale = nn.Parameter(torch.ones(width))

  def forward(self, x):
    return F.rms_norm(x, self.scale.shape, self.scale, 1e-6)


class Attention(nn.Module):

  def __init__(self, c):
    super().__init__()
    self.heads, self.head_dim = c["heads"], c["head_dim"]
    self.into = nn.Linear(c["width"], 3 * c["width"], bias=False)
    self.out = nn.Linear(c["width"], c["width"], bias=False)
    self.q_norm, self.k_norm = RMSNorm(c["head_dim"]), RMSNorm(c["head_dim"])

  def forward(self, x, cos, sin, mask):
    batch, length, _ = x.shape
    q, k, v = (a.view(batch, length, self.heads, self.head_dim).transpose(1, 2) for a in self.into(x).chunk(3, dim=-1))
    q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return self.out(y.transpose(1, 2).reshape(batch, length, -1))


def rotate(x, cos, sin):
  first, second = x.chunk(2, dim=-1)
  return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Layer(nn.Module):

  def __init__(self, c):
    super().__init__()
    self.attention_norm, self.attention, self.mlp_norm = RMSNorm(c["width"]), Attention(c), RMSNorm(c["width"])
    self.into = nn.Linear(c["width"], 2 * c["mlp_width"], bias=False)
    self.out = nn.Linear(c["mlp_width"], c["width"], bias=False)

  def forward(self, x, cos, sin, mask):
    x = x + self.attention(self.attention_norm(x), cos, sin, mask)
    gate, up = self.into(self.mlp_norm(x)).chunk(2, dim=-1)
    return x + self.out(F.silu(gate) * up)


class Transformer(nn.Module):

  def __init__(self, c):
    super().__init__()
    self.end_of_document = c["end_of_document"] if c["document_masking"] else None
    self.embed = nn.Embedding(c["vocab_size"], c["width"])
    self.layers = nn.ModuleList(Layer(c) for _ in range(c["depth"]))
    self.norm = RMSNorm(c["width"])
    self.unembed = nn.Linear(c["width"], c["vocab_size"], bias=False)
    half, length = c["head_dim"] // 2, c["sequence_length"]
    angles = np.arange(length)[:, None] * c["rope_theta"] ** (-np.arange(half) / half)
    self.register_buffer("cos", torch.tensor(np.cos(angles), dtype=torch.float32))
    self.register_buffer("sin", torch.tensor(np.sin(angles), dtype=torch.float32))
    self.register_buffer("causal", torch.ones(length, length, dtype=torch.bool).tril())

  def forward(self, tokens):
    """The mean loss of a batch of windows [B, T + 1]."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    mask = None
    if self.end_of_document is not None:
      ends = (inputs == self.end_of_document).int()
      document = ends.cumsum(1) - ends
      mask = (self.causal & (document[:, :, None] == document[:, None, :]))[:, None]
    x = self.embed(inputs)
    for layer in self.layers:
      x = layer(x, self.cos, self.sin, mask)
    return F.cross_entropy(self.unembed(self.norm(x)).flatten(0, 1), targets.flatten())


class Run:
  """One model in training."""

  def __init__(self, told):
    torch.set_num_threads(told["threads"])
    self.model = Transformer(told["model"])
    with np.load(told["weights"]) as weights:
      load(self.model, weights)
    decays = [p for p in self.model.parameters() if p.ndim > 1]
    rest = [p for p in self.model.parameters() if p.ndim == 1]
    o = told["optimizer"]
    self.clip_norm = o["clip_norm"]
    self.optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": o["weight_decay"]}, {"params": rest, "weight_decay": 0.0}],
        lr=0.0, betas=(o["b1"], o["b2"]), eps=o["eps"], fused=True)
    self.loss = torch.compile(self.model) if told["compile"] else self.model

  def train(self, tokens, rates):
    """Trains on blocks [S, B, T + 1]: the seconds it took, those of processor time, and the losses."""
    tokens = torch.from_numpy(tokens).long()
    losses = []
    began, processor = time.perf_counter(), time.process_time()
    for batch, rate in zip(tokens, rates):
      loss = self.loss(batch)
      loss.backward()
      nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm, foreach=True)
      for group in self.optimizer.param_groups:
        group["lr"] = rate
      self.optimizer.step()
      self.optimizer.zero_grad(set_to_none=True)
      losses.append(loss.detach())
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    return {"seconds": seconds, "processor": processor, "losses": [float(x) for x in losses]}


class Products:
  """The matrix products of a step, forward and backward, on random numbers and without anything between them."""

  def __init__(self, c, batch):
    rows, heads, length = batch * c["sequence_length"], batch * c["heads"], c["sequence_length"]
    linear = c["depth"] * [(c["width"], 3 * c["width"]), (c["width"], c["width"]),
                           (c["width"], 2 * c["mlp_width"]), (c["mlp_width"], c["width"])] + [(c["width"], c["vocab_size"])]
    self.linear = [(torch.randn(rows, i), torch.randn(o, i), torch.randn(rows, o)) for i, o in linear]
    self.attention = [(torch.randn(heads, length, c["head_dim"]), torch.randn(heads, length, length)) for _ in range(c["depth"])]

  def compute(self, steps):
    """Computes those of some steps: the seconds it took."""
    began = time.perf_counter()
    for _ in range(steps):
      for x, w, dy in self.linear:
        x @ w.T, dy @ w, dy.T @ x
      for x, p in self.attention:
        for _ in range(2):  # Scores, and the derivative of p; y, and that of queries; those of values and of keys.
          x @ x.mT, p @ x, p.mT @ x
    return {"seconds": time.perf_counter() - began}


@torch.no_grad()
def load(model, weights):
  """Fills a model with jaxsplit's weights, by its names for them."""
  fill = lambda parameter, value: parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
  fill(model.embed.weight, weights["embed_VxD"])
  fill(model.unembed.weight, weights["unembed_DxV"].T)
  fill(model.norm.scale, weights["norm/scale"])
  for i, layer in enumerate(model.layers):
    of = lambda name: weights[f"layers/{name}"][i]
    heads_DxGxMxd = of("attention/in_DxGxMxd")
    width = heads_DxGxMxd.shape[0]
    fill(layer.attention.into.weight, heads_DxGxMxd.transpose(2, 1, 3, 0).reshape(-1, width))
    fill(layer.attention.out.weight, of("attention/out_GxQxdxD").reshape(-1, width).T)
    fill(layer.attention.q_norm.scale, of("attention/norm/scale")[0])
    fill(layer.attention.k_norm.scale, of("attention/norm/scale")[1])
    fill(layer.attention_norm.scale, of("attention_norm/scale"))
    fill(layer.mlp_norm.scale, of("mlp_norm/scale"))
    fill(layer.into.weight, of("mlp/in_Dx2xF").reshape(width, -1).T)
    fill(layer.out.weight, of("mlp/out_FxD").T)


def main():
  first = json.loads(sys.stdin.readline())
  run, products = Run(first), Products(first["model"], first["batch"])
  print(json.dumps({"torch": torch.__version__}), flush=True)
  for line in sys.stdin:
    told = json.loads(line)
    answer = run.train(np.load(told["tokens"]), told["rates"]) if "tokens" in told else products.compute(told["steps"])
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
