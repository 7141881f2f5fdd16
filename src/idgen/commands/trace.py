"""`idgen trace`: a copy of an adapter → its recipient."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..errors import ProvenanceError
from ..inputs import AdapterName, InputPath
from ..terminal import show, working


def run(
    copy: Annotated[AdapterName, tyro.conf.Positional],
    /,
    tracing_key: InputPath,
    original: AdapterName | None = None,
    recipients: int = 256,
    weight_name: str | None = None,
) -> None:
    """Tell for which recipient a copy of an adapter was made by `idgen fingerprint`.

    idgen trace found/ --original adapter/ --tracing-key studio.key

    Copies are also recognised after some further training, rounding and conversion. If several copies were averaged,
    each of their recipients is named. The chance that a copy of nobody is traced to somebody is below 1 in 1,000,000.

    Args:
        copy: A folder, a file or a hub id.
        tracing_key: Key that the copy was made with.
        original: The adapter that the copies were made of. Without it, only copies of large adapters that were not
            trained much further are recognised.
        recipients: How many numbers to try: 0 to RECIPIENTS - 1.
        weight_name: File of the copy, if its folder or repository holds several.
    """
    if recipients < 1:
        raise ProvenanceError(f"--recipients must be at least 1, got {recipients}.")
    with working(f"Comparing {copy} with {recipients} fingerprints …"):
        from ..adapter import IdentityAdapter
        from ..provenance.fingerprint import trace_weights
        from ..provenance.tracing_key import TracingKey

        key = TracingKey.load(tracing_key)
        weights = IdentityAdapter.from_pretrained(copy, weight_name=weight_name).state_dict()
        base = None if original is None else IdentityAdapter.from_pretrained(original).state_dict()
        traces = trace_weights(weights, key, range(recipients), base)
    for trace in traces:
        if trace.found:
            show(f"recipient {trace.recipient} (score {trace.score:.1f}, threshold {trace.threshold:.1f})")
    if not traces[0].found:
        show(f"no recipient (highest score {traces[0].score:.1f}, threshold {traces[0].threshold:.1f})")
