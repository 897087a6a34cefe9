//! The chart's roles: what the operator, people and publishers may do, and nothing else.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::api::{Api, PostParams};

use super::{SOON, rendered};
use crate::support::{Cluster, TempNamespace, eventually};

/// What a service account may do in a namespace, as `group/resource: verb`, beyond what everybody may.
async fn rights(
    cluster: &Cluster,
    account_namespace: &str,
    account: &str,
    namespace: &str,
) -> BTreeSet<String> {
    let mut config = cluster.config().await;
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{account_namespace}:{account}"));
    config.auth_info.impersonate_groups = Some(vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{account_namespace}"),
        "system:authenticated".to_owned(),
    ]);
    let client = kube::Client::try_from(config).unwrap();
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let review = Api::<SelfSubjectRulesReview>::all(client)
        .create(&PostParams::default(), &review)
        .await
        .unwrap();
    let mut rights = BTreeSet::new();
    for rule in review.status.unwrap().resource_rules {
        let names = rule.resource_names.unwrap_or_default();
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.as_deref().unwrap_or_default() {
                if resource.starts_with("selfsubject") {
                    continue;
                }
                for verb in &rule.verbs {
                    let only = if names.is_empty() {
                        String::new()
                    } else {
                        format!(" {names:?}")
                    };
                    rights.insert(format!("{group}/{resource}: {verb}{only}"));
                }
            }
        }
    }
    rights
}

const IN_THE_CLUSTER: &[&str] = &[
    "authentication.k8s.io/tokenreviews: create",
    "authorization.k8s.io/subjectaccessreviews: create",
];

const IN_A_WATCHED_NAMESPACE: &[&str] = &[
    "/configmaps: get",
    "/configmaps: list",
    "/configmaps: watch",
    "/secrets: create",
    "/secrets: get",
    "/secrets: list",
    "/secrets: patch",
    "/secrets: watch",
    "events.k8s.io/events: create",
    "events.k8s.io/events: patch",
    "postrider.dev/eventdestinations/status: patch",
    "postrider.dev/eventdestinations/status: update",
    "postrider.dev/eventdestinations: get",
    "postrider.dev/eventdestinations: list",
    "postrider.dev/eventdestinations: watch",
    "postrider.dev/eventprojects/status: patch",
    "postrider.dev/eventprojects/status: update",
    "postrider.dev/eventprojects: get",
    "postrider.dev/eventprojects: list",
    "postrider.dev/eventprojects: watch",
];

/// What `rbac.notifications` adds.
const FOR_NOTIFICATIONS: &[&str] = &[
    "postrider.dev/eventdestinations: create",
    "postrider.dev/eventdestinations: delete",
    "postrider.dev/eventdestinations: update",
];

fn set(parts: &[&[&str]]) -> BTreeSet<String> {
    parts
        .iter()
        .flat_map(|part| part.iter().map(|right| (*right).to_owned()))
        .collect()
}

/// `kubectl auth can-i` as a person asks it; `resource` may name a subresource: `pods/exec`.
fn can_i(cluster: &Cluster, user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (user, subresource) = (format!("--as={user}"), format!("--subresource={subresource}"));
    let answer = cluster.kubectl(&[
        "auth",
        "can-i",
        verb,
        resource,
        &subresource,
        &user,
        "-n",
        namespace,
    ]);
    match answer.stdout.trim() {
        "yes" => true,
        "no" => false,
        _ => panic!("{verb} {resource}: {}{}", answer.stdout, answer.stderr),
    }
}

/// The chart's account and roles in force, until dropped.
pub(super) struct Granted<'a> {
    cluster: &'a Cluster,
    namespace: String,
    pub(super) account: String,
}

impl<'a> Granted<'a> {
    /// Applies them; the API server's authorizer sees them a moment later.
    pub(super) fn apply(cluster: &'a Cluster, namespace: &str, more: &[&str]) -> Self {
        let mut args = vec!["-s", "templates/serviceaccount.yaml", "-s", "templates/rbac.yaml"];
        args.extend(more);
        cluster
            .kubectl_with(&["apply", "--server-side"], &rendered(cluster, namespace, &args))
            .ok();
        Self {
            cluster,
            namespace: namespace.to_owned(),
            account: format!("{namespace}-postrider"),
        }
    }

    /// Waits until the account may do this in a namespace, and nothing else.
    async fn allows(&self, namespace: &str, wanted: &[&[&str]]) {
        let wanted = set(wanted);
        eventually("the roles are in force", SOON, async || {
            let rights = rights(self.cluster, &self.namespace, &self.account, namespace).await;
            if rights == wanted {
                Ok(())
            } else {
                Err(format!("{rights:#?}"))
            }
        })
        .await;
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        // What belongs to no namespace does not go with it.
        self.cluster
            .kubectl(&["delete", "clusterrole,clusterrolebinding", &self.account]);
    }
}

#[tokio::test]
async fn operator_may_do_what_it_needs_and_nothing_else() {
    let cluster = Cluster::shared();
    let (home, other) = (
        TempNamespace::new(cluster, "chart-rbac").await,
        TempNamespace::new(cluster, "chart-rbac").await,
    );
    let granted = Granted::apply(cluster, home.name(), &[]);
    granted
        .allows(
            other.name(),
            &[IN_THE_CLUSTER, IN_A_WATCHED_NAMESPACE, FOR_NOTIFICATIONS],
        )
        .await;

    // The same question as people ask it.
    let identity = format!("system:serviceaccount:{}:{}", home.name(), granted.account);
    for (verb, resource, allowed) in [
        ("create", "secrets", true),
        ("patch", "eventdestinations.postrider.dev/status", true),
        ("create", "tokenreviews.authentication.k8s.io", true),
        ("delete", "secrets", false),
        ("update", "secrets", false),
        ("create", "configmaps", false),
        ("patch", "configmaps", false),
        ("create", "eventdestinations.postrider.dev", true),
        ("update", "eventdestinations.postrider.dev", true),
        ("delete", "eventdestinations.postrider.dev", true),
        ("patch", "eventdestinations.postrider.dev", false),
        ("deletecollection", "eventdestinations.postrider.dev", false),
        ("create", "eventprojects.postrider.dev", false),
        ("update", "eventprojects.postrider.dev", false),
        ("delete", "eventprojects.postrider.dev", false),
        ("get", "pods", false),
        ("create", "pods/exec", false),
        ("impersonate", "users", false),
        ("escalate", "clusterroles.rbac.authorization.k8s.io", false),
        ("get", "customresourcedefinitions.apiextensions.k8s.io", false),
    ] {
        let answer = can_i(cluster, &identity, verb, resource, other.name());
        assert_eq!(answer, allowed, "{verb} {resource}");
    }
}

#[tokio::test]
async fn operator_of_one_namespace_sees_no_other() {
    let cluster = Cluster::shared();
    let (home, watched) = (
        TempNamespace::new(cluster, "chart-one").await,
        TempNamespace::new(cluster, "chart-one").await,
    );
    let watch = format!("watchNamespace={},rbac.notifications=false", watched.name());
    let granted = Granted::apply(cluster, home.name(), &["--set", &watch]);
    granted
        .allows(watched.name(), &[IN_THE_CLUSTER, IN_A_WATCHED_NAMESPACE])
        .await;
    granted.allows(home.name(), &[IN_THE_CLUSTER]).await;
}

#[tokio::test]
async fn people_and_publishers_get_roles_of_their_own() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "chart-users").await;
    let name = namespace.name();
    let roles = rendered(cluster, name, &["-s", "templates/user-roles.yaml"]);
    cluster.kubectl_with(&["apply", "--server-side"], &roles).ok();
    let publisher = format!("--clusterrole={name}-postrider-publisher");
    for (binding, role, user) in [
        (
            "publisher",
            publisher.as_str(),
            format!("--serviceaccount={name}:shop"),
        ),
        ("viewer", "--clusterrole=view", format!("--user={name}-viewer")),
        ("editor", "--clusterrole=edit", format!("--user={name}-editor")),
    ] {
        cluster
            .kubectl(&["create", "rolebinding", binding, role, &user, "-n", name])
            .ok();
    }
    let shop = format!("system:serviceaccount:{name}:shop");
    let (viewer, editor) = (format!("{name}-viewer"), format!("{name}-editor"));
    for (user, verb, resource, namespace, allowed) in [
        (&shop, "create", "eventprojects.postrider.dev/events", name, true),
        (
            &shop,
            "create",
            "eventprojects.postrider.dev/events",
            "default",
            false,
        ),
        (&shop, "create", "eventprojects.postrider.dev", name, false),
        (&shop, "get", "eventprojects.postrider.dev", name, false),
        (&viewer, "list", "eventdestinations.postrider.dev", name, true),
        (&viewer, "create", "eventdestinations.postrider.dev", name, false),
        (
            &viewer,
            "create",
            "eventprojects.postrider.dev/events",
            name,
            false,
        ),
        (&editor, "create", "eventdestinations.postrider.dev", name, true),
        (&editor, "delete", "eventprojects.postrider.dev", name, true),
        (
            &editor,
            "patch",
            "eventdestinations.postrider.dev/status",
            name,
            false,
        ),
    ] {
        // Aggregation into view and edit is the controller manager's work and takes a moment.
        eventually(&format!("{user}: {verb} {resource}"), SOON, async || {
            let answer = can_i(cluster, user, verb, resource, namespace);
            if answer == allowed {
                Ok(())
            } else {
                Err(format!("can-i says {answer}"))
            }
        })
        .await;
    }
    cluster.kubectl_with(&["delete"], &roles).ok();
}
