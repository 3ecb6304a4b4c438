"""Graphs with evidence in OpenVINO."""

import numpy as np
import torch

from mlic_runtime.graph.session import create_session
from mlic_train.config import ModelConfig
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.models import Hybrid, create_model


def test_evidence_is_compiled_when_it_is_first_asked_for(small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    model = create_model(small_model).eval()
    assert isinstance(model, Hybrid)
    graph = export_graph(model, 64, evidence=True)
    ours, session = create_session(graph), create_session(graph, provider="openvino", threads=1)
    assert (session.explains, session.grid) == (True, ours.grid)
    arrays = [each.numpy() for each in example_inputs(model, 2, 3, seed=5)]
    np.testing.assert_allclose(session.run(*arrays), ours.run(*arrays), atol=1e-4)
    requests = session._session._requests
    (compiled,) = ({port.get_any_name() for port in each.model_outputs} for each in requests.values())
    assert "logits" in compiled
    assert not {"picture_evidence", "caption_evidence"} & compiled, "the others are not computed"
    found, expected = session.explain(*arrays), ours.explain(*arrays)
    for part, other in zip(found, expected, strict=True):
        assert part is not None
        assert other is not None
        np.testing.assert_allclose(part, other, atol=1e-4)
    assert len(session._session._requests) == 2
    np.testing.assert_array_equal(session.run(*arrays), found.logits)
