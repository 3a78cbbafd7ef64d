import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from llmopt.measure.stats.special import beta_quantile, binomial_cdf, incomplete_beta, t_quantile, z_quantile

shapes = st.floats(0.05, 5e4)
chances = st.floats(1e-6, 1 - 1e-6)


@given(shapes, shapes, st.floats(0, 1))
def test_incomplete_beta(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-9)


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), chances)
def test_binomial(counts, p):
    k, n = counts
    assert binomial_cdf(k, n, p) == pytest.approx(float(special.bdtr(k, n, p)), abs=1e-9)


@given(st.integers(1, 5000), st.integers(1, 5000), chances)
def test_beta_quantile(a, b, p):
    assert beta_quantile(a, b, p) == pytest.approx(special.betaincinv(a, b, p), rel=1e-6, abs=1e-9)


@given(st.floats(0.005, 0.995), st.integers(1, 2000))
def test_t_quantile(p, degrees):
    assert t_quantile(p, degrees) == pytest.approx(special.stdtrit(degrees, p), rel=1e-6, abs=1e-7)


def test_known_quantiles():
    assert t_quantile(0.975, 3) == pytest.approx(3.182446305)
    assert t_quantile(0.975, 1) == pytest.approx(12.7062047)
    assert z_quantile(0.975) == pytest.approx(1.959963985)
    assert (incomplete_beta(2, 3, -1), incomplete_beta(2, 3, 2)) == (0.0, 1.0)
