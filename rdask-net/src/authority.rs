//! The cluster's small certificate authority, and the other side of it: a request for a name.
//!
//! The scheduler makes one [`Authority`] per run and keeps its key in memory; nobody else can
//! give a name. A joiner keeps its private key too: only a [`KeyRequest`]'s public half travels.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use thiserror::Error;

use crate::identity::Identity;
use crate::peer_name::{PeerName, PeerNameError, PeerRole};

/// The longest request that is looked at. Ours have about 200 bytes; parsing is by a library, and
/// a cap keeps what a joiner can ask of it small.
const REQUEST_BYTES_MAX: usize = 4096;

/// A certificate could not be made or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The run or the peer has a name that certificates can't carry.
    #[error(transparent)]
    Name(#[from] PeerNameError),
    /// A certificate was asked for a peer of another run.
    #[error("{name} belongs to another run than this authority's {run:?}")]
    OtherRun {
        /// The name that was asked for.
        name: PeerName,
        /// The authority's run.
        run: String,
    },
    /// The library that makes certificates refused.
    #[error("could not make a key or certificate")]
    Make(#[source] rcgen::Error),
    /// A joiner's request can't be read, or is not signed by the key it asks for.
    #[error("the joiner's certificate request is not usable; its rdask may be of another version")]
    Request(#[source] rcgen::Error),
    /// A joiner's request is far longer than any honest one.
    #[error("the joiner's certificate request has {length} bytes where 4096 are the limit")]
    RequestTooLong {
        /// The request's length in bytes.
        length: usize,
    },
    /// A certificate has no or no single name of a peer in it.
    #[error("the certificate names no rdask peer (its names: {names:?})")]
    Nameless {
        /// The DNS names it has.
        names: Vec<String>,
    },
    /// A certificate can't be read.
    #[error("the certificate can't be read")]
    Unreadable(#[source] webpki::Error),
    /// A text is not the PEM it should be.
    #[error("the {what} is not PEM text with a {tag}")]
    Pem {
        /// What was to be read, such as "join key".
        what: &'static str,
        /// The tag that its PEM block should have.
        tag: &'static str,
    },
    /// Key, certificate and authority don't fit together.
    #[error("key, certificate and authority of {name} don't belong together")]
    Mismatch {
        /// Whose identity it was to be.
        name: PeerName,
        /// What the TLS library says.
        #[source]
        source: rustls::Error,
    },
}

/// The authority of one run: signs the names of its peers.
pub struct Authority {
    run: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A fresh P-256 authority for a run.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Name`] if the run id is not 1 to 63 characters of a-z, 0-9 and inner
    /// '-'; [`CertificateError::Make`] if the system gives no randomness.
    pub fn new(run_id: &str) -> Result<Self, CertificateError> {
        PeerName::scheduler(run_id)?;
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let mut params = named_params(&format!("rdask run {run_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(CertificateError::Make)?;
        Ok(Self { run: run_id.to_owned(), issuer })
    }

    /// The run that this authority speaks for.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The authority's own certificate, which every peer of the run trusts.
    pub fn ca_der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// An identity whose key is made here: the scheduler's own, and the join identity.
    ///
    /// # Errors
    ///
    /// [`CertificateError::OtherRun`] if the name is of another run, or [`CertificateError::Make`].
    pub fn issue(&self, name: &PeerName) -> Result<Identity, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let leaf = self.leaf_params(name)?.signed_by(&key, &self.issuer);
        let leaf = leaf.map_err(CertificateError::Make)?;
        Identity::from_der(self.ca_der(), leaf.der().to_vec(), key.serialize_der())
    }

    /// Signs the public key in a joiner's request under the given name; returns the certificate.
    ///
    /// Nothing but the key is taken from the request: what a joiner is called, and may do, is the
    /// scheduler's decision.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Request`] and [`CertificateError::RequestTooLong`] are the joiner's
    /// fault, [`CertificateError::OtherRun`] and [`CertificateError::Make`] ours.
    pub fn sign(&self, csr_der: &[u8], name: &PeerName) -> Result<Vec<u8>, CertificateError> {
        if csr_der.len() > REQUEST_BYTES_MAX {
            return Err(CertificateError::RequestTooLong { length: csr_der.len() });
        }
        let request = CertificateSigningRequestDer::from(csr_der);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(CertificateError::Request)?;
        let leaf = self.leaf_params(name)?.signed_by(&request.public_key, &self.issuer);
        Ok(leaf.map_err(CertificateError::Make)?.der().to_vec())
    }

    fn leaf_params(&self, name: &PeerName) -> Result<CertificateParams, CertificateError> {
        if name.run() != self.run {
            return Err(CertificateError::OtherRun { name: name.clone(), run: self.run.clone() });
        }
        let text = name.to_string();
        let mut params = named_params(&text);
        let dns_name = text.try_into().map_err(CertificateError::Make)?;
        params.subject_alt_names = vec![SanType::DnsName(dns_name)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // A leaked scheduler file must not let anyone listen in the cluster's name.
        if name.role() != PeerRole::Join {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        Ok(params)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("run", &self.run).finish_non_exhaustive()
    }
}

/// A key pair that waits for its certificate; made by whoever joins a run.
pub struct KeyRequest {
    key_der: Vec<u8>,
    csr_der: Vec<u8>,
}

impl KeyRequest {
    /// A fresh P-256 key pair and the request that goes to the scheduler.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Make`] if the system gives no randomness.
    pub fn new() -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let request = named_params("rdask joiner").serialize_request(&key);
        let csr_der = request.map_err(CertificateError::Make)?.der().to_vec();
        Ok(Self { key_der: key.serialize_der(), csr_der })
    }

    /// The request to send to the scheduler; it holds the public key only.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// Joins the key with the certificate that the scheduler sent.
    ///
    /// # Errors
    ///
    /// A [`CertificateError`] if what came is no certificate for this key, or names no peer.
    pub fn into_identity(
        self,
        ca_der: Vec<u8>,
        leaf_der: Vec<u8>,
    ) -> Result<Identity, CertificateError> {
        Identity::from_der(ca_der, leaf_der, self.key_der)
    }
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

fn named_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(run: &str) -> PeerName {
        PeerName::new(PeerRole::Process, 3, run).unwrap()
    }

    #[test]
    fn a_request_becomes_an_identity_with_the_name_the_scheduler_chose() {
        let authority = Authority::new("r1").unwrap();
        let request = KeyRequest::new().unwrap();
        let leaf = authority.sign(request.csr_der(), &process("r1")).unwrap();
        let identity = request.into_identity(authority.ca_der(), leaf).unwrap();
        assert_eq!(identity.name(), &process("r1"));
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let authority = Authority::new("r1").unwrap();
        let (mine, other) = (KeyRequest::new().unwrap(), KeyRequest::new().unwrap());
        let leaf = authority.sign(other.csr_der(), &process("r1")).unwrap();
        let error = mine.into_identity(authority.ca_der(), leaf).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
    }

    #[test]
    fn a_name_of_another_run_is_not_signed() {
        let authority = Authority::new("r1").unwrap();
        let error = authority.issue(&process("r2")).unwrap_err();
        assert!(matches!(error, CertificateError::OtherRun { .. }), "{error}");
    }

    #[test]
    fn a_broken_request_is_an_error() {
        let authority = Authority::new("r1").unwrap();
        let good = KeyRequest::new().unwrap();
        for position in 0..good.csr_der().len() {
            let mut bytes = good.csr_der().to_vec();
            bytes[position] ^= 0x41;
            // A few bytes around the signature mean nothing; where the request still counts, it is
            // for the same key.
            if let Ok(leaf) = authority.sign(&bytes, &process("r1")) {
                let key = KeyRequest { key_der: good.key_der.clone(), csr_der: Vec::new() };
                key.into_identity(authority.ca_der(), leaf).unwrap();
            }
            assert!(authority.sign(&bytes[..position], &process("r1")).is_err());
        }
        let long = authority.sign(&[0; REQUEST_BYTES_MAX + 1], &process("r1")).unwrap_err();
        assert!(matches!(long, CertificateError::RequestTooLong { .. }), "{long}");
    }

    #[test]
    fn garbage_from_the_scheduler_is_an_error() {
        let authority = Authority::new("r1").unwrap();
        let request = KeyRequest::new().unwrap();
        assert!(request.into_identity(authority.ca_der(), vec![0x30, 0x82, 0xff]).is_err());
        let request = KeyRequest::new().unwrap();
        let leaf = authority.sign(request.csr_der(), &process("r1")).unwrap();
        assert!(request.into_identity(vec![1, 2, 3], leaf).is_err());
    }

    #[test]
    fn debug_output_holds_no_key() {
        let authority = Authority::new("r1").unwrap();
        let identity = authority.issue(&process("r1")).unwrap();
        let text = format!("{authority:?} {:?} {identity:?}", KeyRequest::new().unwrap());
        assert!(text.len() < 300, "{text}");
    }
}
