//! Keys, certificates and client configurations of one lab.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::addressing::{self, Families};
use crate::state::LabDir;

/// Files that the control plane is started with.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    /// Authority of servers and clients.
    pub(crate) ca: PathBuf,
    /// Another authority, for front proxies: kube-controller-manager waits for the
    /// configuration that exists only when the API server has one, and it must not be `ca`.
    pub(crate) front_proxy_ca: PathBuf,
    /// The API server's certificate.
    pub(crate) server: PathBuf,
    /// And its key.
    pub(crate) server_key: PathBuf,
    /// Signs service account tokens.
    pub(crate) service_account_key: PathBuf,
    /// Proves their signatures.
    pub(crate) service_account_public_key: PathBuf,
}

impl Pki {
    /// Where the files of the lab in `dir` are.
    pub(crate) fn at(dir: &LabDir) -> Self {
        let file = |name: &str| dir.pki().join(name);
        Self {
            ca: file("ca.crt"),
            front_proxy_ca: file("front-proxy-ca.crt"),
            server: file("apiserver.crt"),
            server_key: file("apiserver.key"),
            service_account_key: file("service-account.key"),
            service_account_public_key: file("service-account.pub"),
        }
    }
}

/// Name of the client configuration with all rights.
pub(crate) const ADMIN: &str = "admin";
/// Name of kube-controller-manager's.
pub(crate) const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// Name of kube-proxy's, one for all nodes.
pub(crate) const PROXY: &str = "kube-proxy";
/// Name of the node agents', one for all nodes.
pub(crate) const AGENT: &str = "lab-agent";

/// Makes every key and certificate, and a client configuration for each of the
/// clients above.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn create(dir: &LabDir, families: Families) -> Result<Pki> {
    let pki = Pki::at(dir);
    let authority = authority("lightship-lab")?;
    fs::write(&pki.ca, authority.pem())?;
    fs::write(
        &pki.front_proxy_ca,
        self::authority("lightship-lab-front-proxy")?.pem(),
    )?;
    let tokens = KeyPair::generate()?;
    fs::write(&pki.service_account_key, tokens.serialize_pem())?;
    fs::write(&pki.service_account_public_key, tokens.public_key_pem())?;

    let mut names = vec![
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.extend(
        addressing::host(families)
            .iter()
            .map(|net| net.addr().to_string()),
    );
    names.extend(
        addressing::api_cluster_ips(families)
            .iter()
            .map(ToString::to_string),
    );
    let mut server = CertificateParams::new(names)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    fs::write(&pki.server, server.signed_by(&key, &authority)?.pem())?;
    fs::write(&pki.server_key, key.serialize_pem())?;

    for (file, user, group) in [
        (ADMIN, "lab-admin", "system:masters"),
        (CONTROLLER_MANAGER, "system:kube-controller-manager", ""),
        (PROXY, "system:kube-proxy", "system:node-proxier"),
        (AGENT, "lab-agent", "system:masters"),
    ] {
        let (certificate, key) = client(&authority, user, group)?;
        let certificate_file = dir.pki().join(format!("{file}.crt"));
        let key_file = dir.pki().join(format!("{file}.key"));
        fs::write(&certificate_file, certificate)?;
        fs::write(&key_file, key)?;
        let credentials = json!({
            "client-certificate": certificate_file,
            "client-key": key_file,
        });
        write_kubeconfig(
            &dir.kubeconfig(file),
            &pki.ca,
            &addressing::api_url(families),
            &credentials,
        )?;
    }
    Ok(pki)
}

/// Writes a client configuration that uses a service account's token.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_token_kubeconfig(
    dir: &LabDir,
    who: &str,
    families: Families,
    token: &str,
) -> Result<PathBuf> {
    let path = dir.kubeconfig(who);
    write_kubeconfig(
        &path,
        &Pki::at(dir).ca,
        &addressing::api_url(families),
        &json!({ "token": token }),
    )?;
    Ok(path)
}

/// JSON is YAML: every client reads it.
fn write_kubeconfig(
    path: &Path,
    authority: &Path,
    server: &str,
    credentials: &serde_json::Value,
) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "lab",
            "cluster": { "server": server, "certificate-authority": authority },
        }],
        "users": [{ "name": "user", "user": credentials }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "user" } }],
        "current-context": "lab",
    });
    fs::write(path, serde_json::to_vec_pretty(&config)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A client's certificate and key: Kubernetes takes the user from the common name
/// and the group from the organisation.
fn client(
    authority: &CertifiedIssuer<'static, KeyPair>,
    user: &str,
    group: &str,
) -> Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok((
        params.signed_by(&key, authority)?.pem(),
        key.serialize_pem(),
    ))
}
