"""Caption with an open_clip CoCa model, the captioner of MobileCLIP's DataCompDR.

CoCa takes no prompt: prompts are ignored. `CoCa.generate` of open_clip 3.3 does not work with
transformers 5 (it imports a beam search that was removed), hence the short loop here: greedy or
top-p, no beams, no key-value cache, so each token costs a pass over the text so far. RayGen
(apple/ml-mobileclip-dr, scripts/gen.py) samples with top-p 0.9 and cuts each caption at its first
full stop; `first_sentence` does the same and is on by default, because CoCa rambles after it.

Shape letters: B rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from torch import Tensor

from curator.captioners import CAPTIONERS, Caption, CaptionFailure, CaptionRequest
from curator.captioners.families import answer_ids
from curator.captioners.options import Sampling
from curator.captioners.pixels import DecodePool
from curator.captioners.sampling import BROKEN_LOGITS, Drawer, broken_rows, has_zero_run
from curator.core.devices import choose_device, choose_dtype
from curator.core.errors import UsageError
from curator.scorers.clip_model import load_clip

_START, _END, _PAD = 49406, 49407, 0  # of open_clip's SimpleTokenizer
_VOCABULARY = 49408
_DEFAULT_SAMPLING = Sampling()


class CocaCaptioner:
    """Captions with `model`: an open_clip `name:tag`, a hub repository or a local folder.

    A caption has at most `context length - 1` tokens (75 for the published models), even if
    `sampling.max_tokens` is larger; one that reaches the limit has `finish_reason` "length".

    Raises:
        UsageError: not a CoCa model, or not with open_clip's own tokenizer.
        NotFoundError, EngineError: see `curator.scorers.clip_model.load_clip`.
    """

    def __init__(
        self,
        *,
        model: str,
        sampling: Sampling = _DEFAULT_SAMPLING,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        first_sentence: bool = True,
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self._sampling = sampling
        self._first_sentence = first_sentence
        # Weights stay in fp32, with autocast: open_clip's own conversion to bf16 and fp16 skips
        # the queries of CoCa's attention pooling, so the forward pass would fail.
        self._clip = load_clip(model, device=self.device, dtype=torch.float32, revision=revision)
        self._check(model)
        self._images = DecodePool()

    def prefetch(self, requests: Sequence[CaptionRequest]) -> None:
        """Start decoding the images of the next batch."""
        self._images.prefetch(requests)

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """Caption every request, in order; failures: `image.*`, `vlm.garbage` and `vlm.oom`."""
        images = self._images.take(requests)
        outcomes: list[Caption | CaptionFailure] = []
        sound: list[int] = []
        pixels: list[Tensor] = []
        for position, image in enumerate(images):
            if isinstance(image, CaptionFailure):
                outcomes.append(image)
                continue
            outcomes.append(CaptionFailure("engine.error"))  # replaced below
            sound.append(position)
            pixels.append(self._clip.preprocess(image))
        answers = self._answer([requests[i] for i in sound], pixels)
        for position, answer in zip(sound, answers, strict=True):
            outcomes[position] = answer
        return outcomes

    def to_fp32(self) -> bool:
        """Switch to fp32; return false if the model runs in fp32 already."""
        if self.dtype == torch.float32:
            return False
        self.dtype = torch.float32
        return True

    def _check(self, model: str) -> None:
        net = self._clip.net
        if not isinstance(net, CoCa):
            raise UsageError(
                f"{model!r} is a {type(net).__name__}, not a CoCa: it cannot write captions",
                hint=f"e.g. --model {CAPTIONERS.spec('coca').default_model}",
                reason="model.unsupported",
            )
        if net.text_decoder.text_projection.shape[1] != _VOCABULARY:
            raise UsageError(
                f"{model!r} does not use open_clip's own tokenizer",
                hint=f"e.g. --model {CAPTIONERS.spec('coca').default_model}",
                reason="model.unsupported",
            )

    def _answer(
        self, requests: Sequence[CaptionRequest], pixels: Sequence[Tensor]
    ) -> list[Caption | CaptionFailure]:
        """Return one outcome per request; when out of memory, halve the batch, down to one."""
        if not requests:
            return []
        try:
            ids_BT, broken_B = self._generate(requests, torch.stack(list(pixels)))
        except torch.OutOfMemoryError as error:
            failure = CaptionFailure("vlm.oom", f"batch of 1: {str(error).splitlines()[0]}"[:500])
        else:
            return [
                BROKEN_LOGITS if broken else self._caption(request, ids)
                for request, ids, broken in zip(
                    requests, ids_BT.tolist(), broken_B.tolist(), strict=True
                )
            ]
        # Outside of `except`: the traceback would keep the tensors of the failed batch alive.
        if len(requests) == 1:
            return [failure]
        torch.cuda.empty_cache()
        half = len(requests) // 2
        return self._answer(requests[:half], pixels[:half]) + self._answer(
            requests[half:], pixels[half:]
        )

    def _generate(
        self, requests: Sequence[CaptionRequest], images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ids (B, T) after the start token, padded after the end, and broken rows (B,)."""
        net: Any = self._clip.net
        images = images.to(self.device)
        num_steps = min(self._sampling.max_tokens, net.context_length - 1)
        draw = Drawer(self._sampling, requests, self.device)
        out_BT = torch.full((len(requests), 1), _START, device=self.device)
        finished_B = torch.zeros(len(requests), dtype=torch.bool, device=self.device)
        broken_B = finished_B.clone()
        reduced = self.dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=reduced),
        ):
            latent, embs = net._encode_image(images)
            for _ in range(num_steps):
                logits_BV = net(
                    images, out_BT, image_latent=latent, image_embs=embs, output_labels=False
                )["logits"][:, -1]
                broken_now_B = broken_rows(logits_BV)
                broken_B |= broken_now_B & ~finished_B
                drawn_B = draw(logits_BV.masked_fill(broken_now_B[:, None], 0.0))
                drawn_B = torch.where(broken_now_B, _END, drawn_B)
                drawn_B = torch.where(finished_B, _PAD, drawn_B)
                out_BT = torch.cat([out_BT, drawn_B[:, None]], dim=1)
                finished_B |= drawn_B == _END
                if finished_B.all():
                    break
        return out_BT[:, 1:].cpu(), broken_B.cpu()

    def _caption(self, request: CaptionRequest, row: list[int]) -> Caption | CaptionFailure:
        ids, ended = answer_ids(row, [_END])
        if has_zero_run(ids):
            return CaptionFailure("vlm.garbage", "a run of token 0")
        # A start token in the middle would be written out as "<start_of_text>".
        words = torch.tensor([token for token in ids if token != _START], dtype=torch.long)
        text = open_clip.decode(words).strip()
        if self._first_sentence and "." in text:
            text = text[: text.index(".")].strip() + "."
            ended = True
        seed = self._sampling.seed_of(request.candidate)
        return Caption(text, "stop" if ended else "length", len(ids), seed)
