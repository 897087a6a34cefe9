//! Controllers: watch, dereference, validate, publish to the directory, update status.

pub mod access;

/// STUB
pub struct Context {
    /// x
    pub directory: std::sync::Arc<crate::engine::directory::Directory>,
    /// x
    pub view: std::sync::Arc<dyn crate::engine::view::DeliveryView>,
    /// x
    pub clock: std::sync::Arc<dyn crate::engine::clock::Clock>,
    /// x
    pub egress: crate::domain::egress::EgressPolicy,
    /// x
    pub public_url: url::Url,
    /// x
    pub namespace: Option<String>,
    /// x
    pub metrics: KubeMetrics,
}
/// STUB
#[derive(Default)]
pub struct KubeMetrics {}
impl KubeMetrics {
    /// STUB
    pub fn register(&self, _: &mut prometheus_client::registry::Registry) {}
}
/// STUB
pub async fn run(_: kube::Client, _: Context, _: tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
    Ok(())
}
