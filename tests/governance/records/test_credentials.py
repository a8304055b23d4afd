import pytest

from governance.records.credentials import credentials_in, has_credentials, without_credentials
from governance.records.errors import ConfigError, TrackingError, UsageError
from governance.records.yaml_text import read_yaml

PLANTED = "s3cretPW"
WITH_A_CREDENTIAL = [
    f"http://alice:{PLANTED}@mlflow.example:5000",
    f"HTTPS://alice:{PLANTED}@mlflow.example",
    f"https://{PLANTED}@mlflow.example/path",
    f"http://alice:p@ss{PLANTED}@mlflow.example",
    f"http://:{PLANTED}@mlflow.example",
    f"postgresql+psycopg2://alice:/x{PLANTED}@db.example/mlflow",
    f"postgresql:///mlflow?host=db&password={PLANTED}",
    f"mssql+pyodbc:///?odbc_connect=Driver%3Dx%3BUID%3Da%3BPWD%3D{PLANTED}",
    f"https://files.example/a.zip?X-Amz-Signature={PLANTED}&x=1",
    f"https://files.example/a.zip?sv=1&sig={PLANTED}",
    f"https://tsa.example/#access_token={PLANTED}",
]
WITHOUT_ONE = [
    "http://127.0.0.1:5000",
    "http://[::1]:5000/a@b",
    "http://127.0.0.1:5000/teams/a@b",
    "sqlite:////data/a@b/mlflow.db",
    "postgresql://alice@db.example/mlflow",
    "/data/images@2020",
    "file:///data/a:b",
    "write to alice@example.org: she reads http://x.example",
    "https://x.example/a?machine=1&page=2",
    "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k",
]


@pytest.mark.parametrize("address", WITH_A_CREDENTIAL)
def test_a_credential_in_an_address_is_found_and_hidden(address):
    assert has_credentials(address)
    assert PLANTED not in without_credentials(f"cannot open ({address}): refused")


@pytest.mark.parametrize("address", WITHOUT_ONE)
def test_an_address_without_a_credential_stays_as_it_is(address):
    assert not has_credentials(address)
    assert without_credentials(address) == address
    assert credentials_in({"data": {"path": address}, "tracking": {"uri": address}}) is None


def test_a_setting_named_like_a_secret_is_refused_without_its_value():
    for name in ("password", "api_key", "hub_token", "db-secret"):
        found = credentials_in({"model": {"settings": {"deep": {name: PLANTED}}}})
        assert found is not None
        assert found[0] == f"model.settings.deep.{name}"
        assert PLANTED not in found[1]
    assert credentials_in({"model": {"settings": {"tokens": 16, "token_size": "large"}}}) is None


def test_no_error_repeats_a_credential():
    address = WITH_A_CREDENTIAL[0]

    for kind in (ConfigError, TrackingError, UsageError):
        error = kind(f"{address} cannot be opened", findings=(f"{address}: refused",))
        assert PLANTED not in f"{error} {error.findings}"
        assert "mlflow.example" in str(error)


def test_a_file_that_becomes_evidence_carries_no_credential_even_in_a_comment():
    data = f"a: 1\nb: 2  # see https://alice:{PLANTED}@wiki.example\n".encode()

    with pytest.raises(ConfigError, match=r"declarations.yaml:2: no user name") as caught:
        read_yaml(data, "declarations.yaml")

    assert PLANTED not in str(caught.value)
    assert read_yaml(data, "config.yaml", may_hold_credentials=True).content == {"a": 1, "b": 2}
