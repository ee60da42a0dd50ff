use super::*;

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn mark() -> Mark {
    Mark {
        node: "node1".into(),
        boot: "b1".into(),
        why: "2 of 2 witnesses have lost the node".into(),
    }
}

fn pod(conditions: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7" },
        "spec": { "nodeName": "node1", "containers": [] },
        "status": { "conditions": conditions },
    }))
    .unwrap()
}

fn ready() -> Value {
    json!([
        { "type": "ContainersReady", "status": "True" },
        { "type": "Ready", "status": "True" },
    ])
}

/// The pod as the API server makes it of the patch: conditions are merged by type.
fn patched(mut pod: Pod, patch: &Value) -> Pod {
    let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
    let new: PodCondition =
        serde_json::from_value(patch["status"]["conditions"][0].clone()).unwrap();
    conditions.retain(|condition| condition.type_ != new.type_);
    conditions.push(new);
    pod
}

#[test]
fn a_ready_pod_is_marked_and_only_as_it_was_read() {
    let patch = mark_patch(&pod(ready()), &mark(), now()).unwrap();
    assert_eq!(
        patch["metadata"],
        json!({ "uid": "u", "resourceVersion": "7" })
    );
    assert_eq!(
        patch["status"]["conditions"],
        json!([{
            "type": "Ready",
            "status": "False",
            "reason": "NodeLost",
            "message": "2 of 2 witnesses have lost the node (boot b1)",
            "lastTransitionTime": "2026-11-23T12:00:00Z",
        }])
    );
}

#[test]
fn pods_that_are_not_ready_are_left_alone() {
    for conditions in [
        json!([]),
        json!([{ "type": "Ready", "status": "False", "reason": "ContainersNotReady" }]),
        json!([{ "type": "Ready", "status": "Unknown" }]),
        json!([{ "type": "ContainersReady", "status": "True" }]),
    ] {
        assert_eq!(
            mark_patch(&pod(conditions.clone()), &mark(), now()),
            None,
            "{conditions}"
        );
    }
    let done: Pod = serde_json::from_value(json!({ "metadata": { "name": "x" } })).unwrap();
    assert_eq!(mark_patch(&done, &mark(), now()), None);
}

#[test]
fn pods_of_every_kind_are_marked_as_kubernetes_does() {
    for (field, value) in [
        (
            "ownerReferences",
            json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d" }]),
        ),
        (
            "annotations",
            json!({ "kubernetes.io/config.mirror": "hash" }),
        ),
        ("deletionTimestamp", json!("2026-11-23T11:00:00Z")),
    ] {
        let mut object = serde_json::to_value(pod(ready())).unwrap();
        object["metadata"][field] = value;
        object["spec"]["hostNetwork"] = json!(true);
        let pod: Pod = serde_json::from_value(object).unwrap();
        assert!(mark_patch(&pod, &mark(), now()).is_some(), "{field}");
    }
}

#[test]
fn what_was_marked_is_restored_if_the_node_did_not_boot() {
    let marked = patched(
        pod(ready()),
        &mark_patch(&pod(ready()), &mark(), now()).unwrap(),
    );
    let patch = restore_patch(&marked, "b1", now()).unwrap();
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(condition["status"], "True");
    assert!(condition["reason"].is_null() && condition["message"].is_null());
    assert_eq!(
        restore_patch(&marked, "b2", now()),
        None,
        "its containers are gone"
    );
    assert_eq!(restore_patch(&marked, "", now()), None, "nobody knows");
    assert_eq!(restore_patch(&patched(marked, &patch), "b1", now()), None);
}

#[test]
fn what_the_kubelet_says_is_not_overruled() {
    let not_ready = json!([
        { "type": "ContainersReady", "status": "True" },
        { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "boot b1" },
    ]);
    assert_eq!(restore_patch(&pod(not_ready), "b1", now()), None);
    let broken = json!([
        { "type": "ContainersReady", "status": "False" },
        { "type": "Ready", "status": "False", "reason": "NodeLost", "message": "(boot b1)" },
    ]);
    assert_eq!(restore_patch(&pod(broken), "b1", now()), None);
}

#[test]
fn readiness_gates_must_hold_before_a_pod_is_restored() {
    let gated = |gate: &str| {
        let mut object = serde_json::to_value(pod(json!([
            { "type": "ContainersReady", "status": "True" },
            { "type": "shop/open", "status": gate },
            { "type": "Ready", "status": "False", "reason": "NodeLost", "message": "(boot b1)" },
        ])))
        .unwrap();
        object["spec"]["readinessGates"] = json!([{ "conditionType": "shop/open" }]);
        serde_json::from_value::<Pod>(object).unwrap()
    };
    assert!(restore_patch(&gated("True"), "b1", now()).is_some());
    assert_eq!(restore_patch(&gated("False"), "b1", now()), None);
}
