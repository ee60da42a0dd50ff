//! `kubectl`, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lightship_lab::sh;
use serde_json::{Value, json};

/// `kubectl` of one user.
#[derive(Clone)]
pub(crate) struct Kubectl {
    program: PathBuf,
    config: PathBuf,
}

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);

impl Kubectl {
    /// With this kubeconfig.
    pub(crate) fn new(program: &Path, config: &Path) -> Self {
        Self {
            program: program.to_owned(),
            config: config.to_owned(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.config).args(arguments);
        command
    }

    /// What it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        sh::run(self.command(arguments))
    }

    /// What it prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }

    /// The items of a list.
    pub(crate) fn items(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let list = self.json(arguments)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Creates or changes an object.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        self.apply_with(object, &[])
    }

    /// The same with more arguments.
    pub(crate) fn apply_with(&self, object: &Value, more: &[&str]) -> Result<()> {
        let mut arguments = vec!["apply", "--server-side", "--force-conflicts", "-f", "-"];
        arguments.extend(more);
        let command = self.command(&arguments);
        sh::run_with_input(command, Some(&object.to_string())).map(|_| ())
    }

    /// Creates or changes what a manifest says; returns what is printed.
    pub(crate) fn apply_text(&self, manifest: &str) -> Result<String> {
        let command = self.command(&["apply", "--server-side", "-f", "-"]);
        sh::run_with_input(command, Some(manifest))
    }

    /// Why the API server refuses an object.
    pub(crate) fn refusal(&self, object: &Value) -> Result<String> {
        match self.apply(object) {
            Ok(()) => bail!("accepted, but should not be: {object}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Waits until something holds.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        sh::wait_for(what, PATIENCE, Duration::from_millis(30), || {
            Ok(holds(self)?.then_some(()))
        })
    }

    /// A Service's ingress addresses.
    pub(crate) fn ingress(&self, service: &str) -> Result<Vec<String>> {
        let object = self.json(&["get", "service", service])?;
        let entries = object["status"]["loadBalancer"]["ingress"]
            .as_array()
            .cloned();
        let entries = entries.unwrap_or_default();
        for entry in &entries {
            ensure!(entry["ipMode"] == "VIP", "ipMode of {service}: {entry}");
        }
        Ok(entries
            .iter()
            .filter_map(|entry| entry["ip"].as_str().map(str::to_owned))
            .collect())
    }

    /// Waits until a Service has exactly these addresses in this order.
    pub(crate) fn has(&self, service: &str, addresses: &[&str]) -> Result<()> {
        let start = Instant::now();
        loop {
            let ingress = self.ingress(service)?;
            if ingress == addresses {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("Service {service} has {ingress:?}, not {addresses:?}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Names of all VirtualIPs.
    pub(crate) fn vips(&self) -> Result<Vec<String>> {
        let items = self.items(&["get", "virtualips"])?;
        Ok(items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Waits until exactly these VirtualIPs are there.
    pub(crate) fn has_vips(&self, names: &[&str]) -> Result<()> {
        self.wait(&format!("the VirtualIPs are {names:?}"), |kubectl| {
            Ok(kubectl.vips()? == names)
        })
    }

    /// Events about an object, as `Type Reason: note`, oldest first.
    pub(crate) fn events(&self, object: &str) -> Result<Vec<String>> {
        let mut items = self.items(&["get", "events.events.k8s.io"])?;
        items.retain(|event| event["regarding"]["name"] == object);
        items.sort_by_key(|event| event["eventTime"].as_str().map(str::to_owned));
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let texts = items.iter().map(|event| {
            format!(
                "{} {}: {}",
                text(event, "type"),
                text(event, "reason"),
                text(event, "note")
            )
        });
        Ok(texts.collect())
    }

    /// Waits for an event about an object that contains all of these parts.
    pub(crate) fn told(&self, object: &str, parts: &[&str]) -> Result<()> {
        let start = Instant::now();
        loop {
            let events = self.events(object)?;
            if events
                .iter()
                .any(|event| parts.iter().all(|part| event.contains(part)))
            {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("no event about {object} with {parts:?} among {events:#?}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until a Service's condition has this status and reason, and a message with these
    /// parts.
    pub(crate) fn assigned(
        &self,
        service: &str,
        status: &str,
        reason: &str,
        parts: &[&str],
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let object = self.json(&["get", "service", service])?;
            let conditions = object["status"]["conditions"].as_array().cloned();
            let ours = |c: &Value| c["type"] == "lightship.dev/AddressAssigned";
            let condition = conditions.unwrap_or_default().into_iter().find(ours);
            let condition = condition.unwrap_or_default();
            let message = condition["message"].as_str().unwrap_or_default();
            if condition["status"] == status
                && condition["reason"] == reason
                && parts.iter().all(|part| message.contains(part))
            {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "{service} is not AddressAssigned={status} {reason} {parts:?} but {condition}"
                );
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until a condition of a pool is there with these parts, or is not there.
    pub(crate) fn pool_says(&self, pool: &str, kind: &str, parts: Option<&[&str]>) -> Result<()> {
        self.wait(&format!("{kind} of pool {pool}: {parts:?}"), |kubectl| {
            let object = kubectl.json(&["get", "addresspool", pool])?;
            let conditions = object["status"]["conditions"].as_array().cloned();
            let found = conditions
                .unwrap_or_default()
                .into_iter()
                .find(|c| c["type"] == kind);
            Ok(match (found, parts) {
                (None, None) => true,
                (Some(condition), Some(parts)) => {
                    let message = condition["message"].as_str().unwrap_or_default();
                    parts.iter().all(|part| message.contains(part))
                }
                _ => false,
            })
        })
    }

    /// Waits until a pool's Ready condition has this status and a message with these parts.
    pub(crate) fn ready(&self, pool: &str, status: &str, parts: &[&str]) -> Result<()> {
        let start = Instant::now();
        loop {
            let object = self.json(&["get", "addresspool", pool])?;
            let condition = &object["status"]["conditions"][0];
            let message = condition["message"].as_str().unwrap_or_default();
            let current = condition["observedGeneration"] == object["metadata"]["generation"];
            if current
                && condition["status"] == status
                && parts.iter().all(|part| message.contains(part))
            {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("pool {pool} is not Ready={status} with {parts:?} but {condition}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

/// A pool of these ranges, without a delay before an address is used again.
pub(crate) fn pool(name: &str, addresses: &[&str]) -> Value {
    json!({
        "apiVersion": "lightship.dev/v1beta1", "kind": "AddressPool",
        "metadata": { "name": name },
        "spec": { "addresses": addresses, "reuseDelaySeconds": 0 },
    })
}

/// An IPv4 Service of type LoadBalancer.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": ["IPv4"],
            "ports": [{ "port": 80 }],
            "selector": { "app": name },
        },
    })
}

/// The same with an annotation.
pub(crate) fn annotated(name: &str, annotation: &str, value: &str) -> Value {
    let mut object = service(name);
    object["metadata"]["annotations"] = json!({ annotation: value });
    object
}

/// The same with a sharing key, on this port.
pub(crate) fn sharing(name: &str, key: &str, port: u16) -> Value {
    let mut object = annotated(name, "lightship.dev/shared-address-key", key);
    object["spec"]["ports"] = json!([{ "port": port }]);
    object
}
