"""Responses, their padding and the response positions, against positions counted by hand."""

import pytest

from steerpaper.models.responses import Response, teacher_forcing


def test_response_is_plain_and_frozen():
    response = Response(prompt=[1, 2], completion=[3])
    assert response.tokens == [1, 2, 3] and response.text is None
    assert response == Response([1, 2], [3])
    with pytest.raises(AttributeError):
        response.prompt = [4]


def test_response_needs_a_prompt():
    with pytest.raises(ValueError, match="at least one token id"):
        Response(prompt=[], completion=[3])


def test_teacher_forcing_masks_the_positions_that_predict_the_response(model):
    responses = [Response([1, 7, 8, 9], [20, 21]), Response([1, 5], [30]), Response([1], [40, 41])]
    batch = teacher_forcing(model, responses)
    assert batch.input_ids.tolist() == [[1, 7, 8, 9, 20, 21], [0, 0, 0, 1, 5, 30], [0, 0, 0, 1, 40, 41]]
    assert batch.attention_mask.tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert batch.response_mask.int().tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0]]
    assert batch.targets[batch.response_mask].tolist() == [20, 21, 30, 40, 41]


def test_teacher_forcing_errors(llama):
    with pytest.raises(ValueError, match="no responses given"):
        teacher_forcing(llama, [])
    with pytest.raises(ValueError, match="response 1 has an empty completion"):
        teacher_forcing(llama, [Response([1], [2]), Response([1], [])])
    with pytest.raises(ValueError, match="response 0 has 129 tokens, the model's context 128"):
        teacher_forcing(llama, [Response([1] * 100, [2] * 29)])
