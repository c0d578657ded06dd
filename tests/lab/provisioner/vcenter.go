package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/vmware/govmomi/cns"
	"github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	vim "github.com/vmware/govmomi/vim25/types"
)

type vcenterOptions struct {
	url, user, password, caFile string
}

// vcenter keeps one session, and logs in again when it is lost.
type vcenter struct {
	options vcenterOptions

	mu     sync.Mutex
	client *vim25.Client
}

func newVcenter(options vcenterOptions) *vcenter { return &vcenter{options: options} }

// connected hands out the session's client, logging in when there is none.
func (v *vcenter) connected(ctx context.Context) (*vim25.Client, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil {
		return v.client, nil
	}
	client, err := v.login(ctx)
	if err != nil {
		return nil, fmt.Errorf("log in to vCenter: %w", err)
	}
	v.client = client
	return client, nil
}

func (v *vcenter) login(ctx context.Context) (*vim25.Client, error) {
	address, err := soap.ParseURL(v.options.url)
	if err != nil {
		return nil, err
	}
	address.User = nil
	transport := soap.NewClient(address, false)
	if err := transport.SetRootCAs(v.options.caFile); err != nil {
		return nil, err
	}
	client, err := vim25.NewClient(ctx, transport)
	if err != nil {
		return nil, err
	}
	if err := client.UseServiceVersion(); err != nil {
		return nil, err
	}
	account := url.UserPassword(v.options.user, v.options.password)
	return client, session.NewManager(client).Login(ctx, account)
}

// forget drops a session that a call has shown to be lost.
func (v *vcenter) forget(client *vim25.Client) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client == client {
		v.client = nil
	}
}

// with calls vCenter's storage service, a second time when the session was
// lost before the first: every call made through it may be repeated.
func (v *vcenter) with(ctx context.Context, do func(*cns.Client, *vim25.Client) error) error {
	for again := false; ; again = true {
		client, err := v.connected(ctx)
		if err != nil {
			return err
		}
		service, err := cns.NewClient(ctx, client)
		if err == nil {
			err = do(service, client)
		}
		if !again && notAuthenticated(err) {
			v.forget(client)
			continue
		}
		return err
	}
}

func notAuthenticated(err error) bool {
	if err == nil || !soap.IsSoapFault(err) {
		return false
	}
	_, lost := soap.ToSoapFault(err).VimFault().(vim.NotAuthenticated)
	return lost
}

func (v *vcenter) create(ctx context.Context, want wantedVolume) (id string, err error) {
	err = v.with(ctx, func(service *cns.Client, client *vim25.Client) error {
		id, err = find(ctx, service, want.name)
		if err != nil || id != "" {
			return err
		}
		task, err := service.CreateVolume(ctx, []types.CnsVolumeCreateSpec{createSpec(want)})
		if err != nil {
			return err
		}
		result, err := outcome(ctx, client, task.Reference())
		if err != nil {
			return err
		}
		id = result.VolumeId.Id
		return nil
	})
	return id, err
}

// find looks for a volume by its name, which is that of its PersistentVolume
// and so belongs to one claim only.
func find(ctx context.Context, service *cns.Client, name string) (string, error) {
	found, err := service.QueryVolume(ctx, &types.CnsQueryFilter{Names: []string{name}})
	if err != nil || len(found.Volumes) == 0 {
		return "", err
	}
	return found.Volumes[0].VolumeId.Id, nil
}

func createSpec(want wantedVolume) types.CnsVolumeCreateSpec {
	claim := types.CnsKubernetesEntityReference{
		EntityType: string(types.CnsKubernetesEntityTypePV), EntityName: want.name, ClusterID: want.cluster,
	}
	entity := func(kind types.CnsKubernetesEntityType, name, namespace string) *types.CnsKubernetesEntityMetadata {
		return &types.CnsKubernetesEntityMetadata{
			CnsEntityMetadata: types.CnsEntityMetadata{EntityName: name, ClusterID: want.cluster},
			EntityType:        string(kind), Namespace: namespace,
		}
	}
	volume := entity(types.CnsKubernetesEntityTypePV, want.name, "")
	owner := entity(types.CnsKubernetesEntityTypePVC, want.claim, want.claimNamespace)
	owner.ReferredEntity = []types.CnsKubernetesEntityReference{claim}
	for key, value := range want.claimLabels {
		owner.Labels = append(owner.Labels, vim.KeyValue{Key: key, Value: value})
	}
	cluster := types.CnsContainerCluster{
		ClusterType: string(types.CnsClusterTypeKubernetes), ClusterId: want.cluster,
		VSphereUser: want.user, ClusterFlavor: string(types.CnsClusterFlavorVanilla),
	}
	return types.CnsVolumeCreateSpec{
		Name: want.name, VolumeType: string(types.CnsVolumeTypeBlock),
		Metadata: types.CnsVolumeMetadata{
			ContainerCluster: cluster, ContainerClusterArray: []types.CnsContainerCluster{cluster},
			EntityMetadata: []types.BaseCnsEntityMetadata{volume, owner},
		},
		BackingObjectDetails: &types.CnsBlockBackingDetails{
			CnsBackingObjectDetails: types.CnsBackingObjectDetails{CapacityInMb: want.capacityMiB},
		},
	}
}

func (v *vcenter) remove(ctx context.Context, id string) error {
	return v.with(ctx, func(service *cns.Client, client *vim25.Client) error {
		task, err := service.DeleteVolume(ctx, []types.CnsVolumeId{{Id: id}}, true)
		if err != nil {
			return err
		}
		_, err = outcome(ctx, client, task.Reference())
		var failed *volumeError
		if errors.As(err, &failed) && failed.gone() {
			return nil
		}
		return err
	})
}

// volumeError is a failure that a task's result holds for one volume.
type volumeError struct{ fault *vim.LocalizedMethodFault }

func (e *volumeError) Error() string {
	return fmt.Sprintf("%T: %s", e.fault.Fault, e.fault.LocalizedMessage)
}

func (e *volumeError) gone() bool {
	switch e.fault.Fault.(type) {
	case *vim.NotFound, *types.CnsVolumeNotFoundFault:
		return true
	default:
		return false
	}
}

// outcome waits for a task on one volume.
func outcome(ctx context.Context, client *vim25.Client, task vim.ManagedObjectReference) (*types.CnsVolumeOperationResult, error) {
	info, err := object.NewTask(client, task).WaitForResult(ctx, nil)
	if err != nil {
		return nil, err
	}
	batch, ok := info.Result.(types.CnsVolumeOperationBatchResult)
	if !ok || len(batch.VolumeResults) != 1 {
		return nil, fmt.Errorf("the task's result is %T, not that of one volume", info.Result)
	}
	result := batch.VolumeResults[0].GetCnsVolumeOperationResult()
	if result.Fault != nil {
		return nil, &volumeError{result.Fault}
	}
	return result, nil
}
