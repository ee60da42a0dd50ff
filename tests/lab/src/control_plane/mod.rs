//! etcd, kube-apiserver and kube-controller-manager: real, in the namespace `ls-lab`.

pub mod apiserver;
pub mod controller_manager;
pub mod etcd;
