import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.utils.estimator_checks import parametrize_with_checks

from src.similarity import check_rows, pairwise_distribution
from src.transforms import AllButTheTop, Centering, SpectralScaling


@parametrize_with_checks([Centering(), AllButTheTop(), SpectralScaling(), SpectralScaling(-0.5)])
def test_scikit_learn_takes_them_for_its_own(estimator, check):
    check(estimator)


@pytest.fixture
def narrow(unit_rows):
    """Rows that share an offset and vary more in some directions than in others."""
    rows = unit_rows(400, 12) * np.linspace(0.2, 1, 12, dtype=np.float32) + 0.3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_centring(narrow):
    centred = Centering().fit_transform(narrow)
    assert np.allclose(centred, unit(narrow - narrow.mean(0)), atol=1e-6)
    assert abs(pairwise_distribution(centred).mean) < 0.01 < pairwise_distribution(narrow).mean


def test_all_but_the_top_is_what_the_paper_says(narrow):
    centred = narrow - narrow.mean(0)
    top = PCA(3).fit(centred).components_
    expected = unit(centred - centred @ top.T @ top)
    assert np.allclose(AllButTheTop(3).fit_transform(narrow), expected, atol=1e-5)
    assert np.allclose(AllButTheTop(0).fit_transform(narrow), unit(centred), atol=1e-5)
    with pytest.raises(ValueError, match="directions is 12: 0 to 11 of 12"):
        AllButTheTop(12).fit(narrow)


def test_whitening_and_sharpening(narrow):
    whitened = PCA(whiten=True).fit_transform(narrow.astype(np.float64))
    cosines = unit(whitened) @ unit(whitened).T
    ours = SpectralScaling(-0.5).fit_transform(narrow)
    assert np.allclose(ours @ ours.T, cosines, atol=1e-4)
    widths = [pairwise_distribution(SpectralScaling(p).fit_transform(narrow)).width for p in (-0.5, 0, 0.25, 0.5, 1)]
    assert widths == sorted(widths)
    assert np.allclose(SpectralScaling(0).fit_transform(narrow), Centering().fit_transform(narrow), atol=1e-5)


def test_fitted_on_other_rows_and_of_unit_length(narrow):
    train, test = narrow[:300], narrow[300:]
    for transform in (Centering(), AllButTheTop(2), SpectralScaling(0.5)):
        mapped = transform.fit(train).transform(test)
        check_rows(mapped, unit=True)
        assert mapped.dtype == np.float32
        assert np.allclose(mapped[:1], transform.transform(test[:1]), atol=1e-6)  # a row does not depend on the others


def test_a_row_at_the_mean_stays_zero():
    rows = np.array([[1, 0], [-1, 0], [0, 0]], np.float32)
    assert Centering().fit_transform(rows)[2].tolist() == [0, 0]


def test_whitening_on_too_few_rows_is_warned_of(narrow):
    with pytest.warns(UserWarning, match="3 of 12 directions have no variance"):
        SpectralScaling(-0.5).fit(narrow[:10])
