"""What cannot fit is refused before anything is started, in both languages."""

import pytest


@pytest.mark.parametrize(("lang", "said"), [("en", "does not fit"), ("ko", "실행 불가")])
def test_a_context_of_two_billion_tokens_is_refused_before_anything_is_started(inline, demo_model, lang, said):
    task = ("--dataset", "korean_math_easy", "--samples", "2", "--max-tokens", "4")
    asked = ("benchmark", "--model", str(demo_model), "--engine", "llamacpp", "--set", "context=2000000000", *task)
    ran = inline.run(*asked, lang=lang)
    assert ran.code == 4, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not list(inline.folder.rglob("engine*.log"))
