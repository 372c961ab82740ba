"""The closed list of reasons why something was not used, and of the flags of what was used.

Every quarantine row has one of `REASONS`. `retryable` says whether trying the same bytes
again can end differently: a model's answer can, the bytes of a damaged image cannot.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """`stage` is where the reason is found: read, decode, score, caption."""

    stage: str
    retryable: bool
    text: str


def about(reason: str) -> Reason:
    """Return what is known of a reason; of one that this version does not know, its name."""
    unknown = Reason("unknown", True, "a reason that this version does not know")
    return REASONS.get(reason, unknown)


REASONS: dict[str, Reason] = {
    # read: the tar itself
    "tar.truncated": Reason("read", False, "the tar ends inside a header or a member"),
    "tar.no_eof": Reason("read", False, "the tar ends without its end-of-archive blocks"),
    "tar.bad_header": Reason("read", False, "a tar header fails its checksum"),
    "tar.premature_eof": Reason("read", False, "a block of zeros with more members behind it"),
    "tar.data_after_eof": Reason("read", False, "another archive follows the end of this one"),
    "tar.empty": Reason("read", False, "the file holds no byte, or no member"),
    "tar.not_a_tar": Reason("read", False, "the file is not a tar archive"),
    "tar.compressed": Reason("read", False, "the tar is compressed"),
    "tar.unsupported_member": Reason("read", False, "a link, device, FIFO or sparse member"),
    "tar.header_too_large": Reason("read", False, "a name or PAX header above 64 KiB"),
    "tar.size_limit": Reason("read", False, "a member above the size limit"),
    "shard.count_mismatch": Reason("read", False, "fewer samples than 00000_stats.json counts"),
    "shard.missing": Reason("read", True, "the shard could not be opened"),
    # the keys and samples in it
    "key.duplicate_member": Reason("read", False, "the same member name again; the first wins"),
    "key.not_adjacent": Reason("read", False, "the files of one key are not next to each other"),
    "key.invalid": Reason("read", False, "a name that WebDataset readers skip or cannot hold"),
    "key.ambiguous": Reason("read", False, "two keys that are the same file once unpacked"),
    "path.traversal": Reason("read", False, "a member name that points outside the archive"),
    "sample.no_image": Reason("read", False, "a sample without an image"),
    "sample.ambiguous_image": Reason("read", False, "a sample with more than one image"),
    "caption.too_long": Reason("read", False, "an alt text above 64 KiB"),
    "json.too_large": Reason("read", False, "a json member above 10 MB"),
    "json.too_deep": Reason("read", False, "a json member nested too deeply"),
    "json.invalid": Reason("read", False, "a json member that cannot be parsed"),
    "image.missing": Reason("read", True, "the image file of a table row is missing"),
    "row.invalid": Reason("read", False, "a row of a table or sidecar that cannot be used"),
    # decode
    "image.empty": Reason("decode", False, "an image of 0 bytes"),
    "image.truncated": Reason("decode", False, "the image data ends early"),
    "image.corrupt": Reason("decode", False, "the image data cannot be decoded"),
    "image.not_an_image": Reason("decode", False, "the bytes are not an image"),
    "image.format_not_allowed": Reason("decode", False, "an image format that is not read"),
    "image.too_many_pixels": Reason("decode", False, "more pixels than the limit"),
    "image.too_small": Reason("decode", False, "a side below the limit"),
    "image.aspect": Reason("decode", False, "aspect ratio above the limit"),
    "image.metadata_bomb": Reason("decode", False, "metadata that unpacks beyond its limit"),
    "image.decode_timeout": Reason("decode", True, "decoding took longer than the limit"),
    "image.decoder_crashed": Reason("decode", True, "the worker process crashed while decoding"),
    # score
    "caption.empty": Reason("score", False, "no text to score"),
    "score.not_finite": Reason("score", True, "NaN or infinity, in 32-bit floats too"),
    "judge.no_yes_no": Reason("score", True, "neither yes nor no among a judge's likeliest tokens"),
    "judge.unclear": Reason("score", True, "a judge's answer that is none of those it was offered"),
    # caption
    "vlm.refusal": Reason("caption", True, "the model refused"),
    "vlm.repetition": Reason("caption", True, "the model repeated itself"),
    "vlm.empty": Reason("caption", True, "the model returned no text"),
    "vlm.language": Reason("caption", True, "the wrong language"),
    "vlm.echo": Reason("caption", True, "the model repeated the prompt"),
    "vlm.boilerplate": Reason("caption", True, "chat phrases: about itself, options, offers"),
    "vlm.reasoning_only": Reason("caption", True, "reasoning, no caption: raise --max-tokens"),
    "vlm.markup": Reason("caption", True, "a list, JSON, HTML or other markup, not a sentence"),
    "vlm.garbage": Reason("caption", True, "one token repeated: a sign of NaN logits"),
    "vlm.special_token": Reason("caption", True, "a special token of a tokenizer in the text"),
    "vlm.stuck": Reason("caption", True, "the same caption for too many different images"),
    "vlm.mismatch": Reason("caption", True, "an answer that matches no request"),
    "vlm.words": Reason("caption", True, "a forbidden word, or a required one is missing, twice"),
    "vlm.oom": Reason("caption", True, "out of memory with this image alone"),
    "vlm.stalled": Reason("caption", True, "no answer within the stall timeout"),
    "engine.error": Reason("caption", True, "the engine answered with an error"),
    "retry.pending": Reason("caption", True, "waiting for a retry by the next run"),
    "engine.crashed": Reason("caption", True, "the model process died on this item"),
}
