"""What misleads AWQ's search: variants of it on Gram matrices, in torch f32, and the KL divergence of each from the full-precision model.

awq_search_variants.py HF_DIR CALIBRATION TEXT SAMPLES SEQ_LEN CTX CHUNKS STATS.pt VARIANT..

STATS.pt is made if it is not there (one Gram matrix a linear input; a sequence in four is kept back; a row counts at most as four median rows of its
sequence). 4 bits, groups of 128, asymmetric. A VARIANT is parts joined by commas, each KIND or KIND:LINEAR+LINEAR..:
  random       scales of e^(0.02 normal): roundings as good as any
  sum          the scale with the least summed loss, as AWQ has it; kept only if 2 % better on the rows kept back
  worst        the scale with the least loss of the worst matrix, beside its loss at scale 1; kept on the same terms
  only_v       the scale that is best for the last matrix (v)
  cut          the range of each group by its block of the Gram matrix, as AWQ has it
  gain         the same, each candidate's gain given back (w G w / q G w)
  sweep        the same, with what all other groups do
Printed: mean KL, and its difference to rounding with its standard error over tokens.
"""
import math, os, sys, time, torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

folder, calibration, text = sys.argv[1:4]
SAMPLES, SEQ, CTX, CHUNKS = map(int, sys.argv[4:8])
stats_file, variants = sys.argv[8], sys.argv[9:]
GROUP, TOP = 128, 15
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json")
bos = model.config.vocab_size == 2048
SITES = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
layers = model.model.layers


def windows(path, count, length):
    ids = ([0] if bos else []) + tokenizer.encode(open(path, encoding="utf8").read(), add_special_tokens=False)
    rows = torch.tensor([ids[i * length : (i + 1) * length] for i in range(count)])
    if bos:
        rows[:, 0] = 0
    return rows


def gather():
    stats, part = {}, "fit"

    def hook(key):
        def seen(_, inputs, __):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            squares = (x * x).sum(1)
            limit = 4 * squares.median()
            x = x * torch.where(squares > limit, (limit / squares).sqrt(), torch.ones_like(squares))[:, None]
            s = stats.setdefault((*key, part), dict(G=torch.zeros(x.shape[1], x.shape[1]), am=torch.zeros(x.shape[1]), n=0))
            s["G"].addmm_(x.T, x)
            s["am"] += x.abs().sum(0)
            s["n"] += len(x)
        return seen

    hooks = [layers[l].get_submodule(s[0]).register_forward_hook(hook((l, s[0].split(".")[1]))) for l in range(len(layers)) for s in SITES]
    with torch.no_grad():
        for i, ids in enumerate(windows(calibration, SAMPLES, SEQ)):
            part = "chk" if i % 4 == 3 else "fit"
            model(ids[None], use_cache=False)
    [h.remove() for h in hooks]
    torch.save(stats, stats_file)


if not os.path.exists(stats_file):
    gather()
stats = torch.load(stats_file, mmap=True)
weights = {(l, n): layers[l].get_submodule(n).weight.data.clone() for l in range(len(layers)) for s in SITES for n in s}


def gram(l, site, part):
    s = stats[(l, site[0].split(".")[1], part)]
    return s["G"] / s["n"], s["am"] / s["n"]


def rounded(w, share=1.0):
    low, high = w.amin(-1, True).clamp_max(0) * share, w.amax(-1, True).clamp_min(0) * share
    step = ((high - low) / TOP).clamp_min(1e-10)
    zero = torch.round(-low / step)
    return (torch.clamp(torch.round(w / step) + zero, 0, TOP) - zero) * step


def plain(w, s=1.0):
    return rounded((w * s).reshape(w.shape[0], -1, GROUP)).reshape(w.shape) / s


def loss(e, g):
    return ((e @ g) * e).sum().item()


def searched(l, site, kind):
    g, a = gram(l, site, "fit")
    if kind == "random":
        return torch.exp(0.02 * torch.randn(len(a)))
    ws = [weights[(l, n)] for n in site]
    parts = [w.abs().reshape(w.shape[0], -1, GROUP) for w in ws]
    mean = torch.cat([(p / (p.amax(-1, True) + 1e-6)).flatten(1) for p in parts]).mean(0)
    some = [w[torch.linspace(0, len(w) - 1, min(256, len(w))).long()] for w in ws]
    before = [loss(w - plain(w), g) for w in some]
    rate = {"sum": lambda e: sum(e) / sum(before), "worst": lambda e: max(x / b for x, b in zip(e, before)), "only_v": lambda e: e[-1] / before[-1]}[kind]
    best = (1.0, torch.ones_like(a))
    for r in (0.2, 0.4, 0.6, 0.8, 1.0):
        for s in (a.pow(r), a.pow(r) / (mean.pow(1 - r) + 1e-4)):
            s = s.clamp_min(1e-4)
            s = s / (s.max() * s.min()).sqrt()
            value = rate([loss(w - plain(w, s), g) for w in some])
            if value < best[0]:
                best = (value, s)
    check, s = gram(l, site, "chk")[0], best[1]
    before = [loss(w - plain(w), check) for w in some]
    return s if rate([loss(w - plain(w, s), check) for w in some]) < 0.98 else torch.ones_like(a)


def cut(w, s, g, kind):
    error = w - plain(w, s)
    effect = error @ g
    damp = 0.01 * g.diag().mean() if kind == "sweep" else 0.0
    for b in range(0, w.shape[1], GROUP):
        c = slice(b, b + GROUP)
        own, block, old = w[:, c], g[c, c] + damp * torch.eye(GROUP), error[:, c].clone()
        others = effect[:, c] - old @ g[c, c] if kind == "sweep" else torch.zeros_like(own)
        rate = lambda e: ((e @ block) * e).sum(1) + 2 * (others * e).sum(1)
        best, least = old.clone(), rate(old)
        for i in range(9):
            e = own - rounded(own * s[c], 1 - 0.05 * i) / s[c]
            if kind != "cut":
                reach = own @ block
                strength, lost = (own * reach).sum(1), (e * reach).sum(1)
                gain = strength / (strength - lost)
                gain = torch.where((gain > 0.8) & (gain < 1.25), gain, torch.ones_like(gain))[:, None]
                e = (1 - gain) * own + gain * e
            value = rate(e)
            best[value < least] = e[value < least]
            least = torch.minimum(least, value)
        effect += (best - old) @ g[c]
        error[:, c] = best
    return w - error


def log_probabilities():
    with torch.no_grad():
        for ids in windows(text, CHUNKS, CTX):
            hidden = model.model(ids[None], use_cache=False)[0][:, CTX // 2 : CTX - 1]
            yield model.lm_head(hidden)[0].log_softmax(-1)


def apply(variant):
    chosen = [p.split(":") for p in variant.split(",")]
    wanted = lambda kinds, n: next((p[0] for p in chosen if p[0] in kinds and (len(p) < 2 or n.split(".")[1].split("_")[0] in p[1].split("+"))), None)
    for l in range(len(layers)):
        for site in SITES:
            kind = wanted(("random", "sum", "worst", "only_v"), site[0])
            s = searched(l, site, kind) if kind else torch.ones(weights[(l, site[0])].shape[1])
            for n in site:
                kind = wanted(("cut", "gain", "sweep"), n)
                w = weights[(l, n)]
                layers[l].get_submodule(n).weight.data = cut(w, s, gram(l, site, "fit")[0], kind) if kind else plain(w, s)


base = list(log_probabilities())
apply("round")
of = lambda: torch.cat([(b.exp() * (b - p)).sum(-1) for b, p in zip(base, log_probabilities())])
rounding = of()
print(f"{'rounding':32s} {rounding.mean():.5f}", flush=True)
for i, variant in enumerate(variants):
    torch.manual_seed(i)
    start = time.time()
    apply(variant)
    kl = of()
    d = kl - rounding
    print(f"{variant:32s} {kl.mean():.5f} {d.mean():+.5f} ± {d.std() / len(d) ** 0.5:.5f}  {time.time() - start:.0f} s", flush=True)
