package double

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// faultOf says a refusal in the words of the protocol.
func faultOf(err error) types.BaseMethodFault {
	if err == nil {
		return nil
	}
	var refusal *store.Refusal
	if !errors.As(err, &refusal) {
		log.Printf("a disk operation failed on this machine: %s", err)
		return &types.SystemError{Reason: err.Error()}
	}
	because := types.MethodFault{FaultCause: &types.LocalizedMethodFault{
		Fault: &types.SystemErrorFault{Reason: refusal.Error()}, LocalizedMessage: refusal.Error(),
	}}
	switch refusal.Kind {
	case store.NotFound:
		return &types.NotFound{VimFault: types.VimFault{MethodFault: because}}
	case store.InvalidState:
		return &types.InvalidState{VimFault: types.VimFault{MethodFault: because}}
	case store.AlreadyExists:
		return &types.AlreadyExists{VimFault: types.VimFault{MethodFault: because}, Name: refusal.Subject}
	case store.NotTracked:
		return trackingFault(because, refusal, "noTrack")
	case store.NoEpoch:
		return trackingFault(because, refusal, "noEpoch")
	case store.ChangesUnknown:
		return trackingFault(because, refusal, "cannotGetChanges")
	default:
		return &types.InvalidArgument{RuntimeFault: types.RuntimeFault{MethodFault: because}, InvalidProperty: refusal.Subject}
	}
}

// trackingFault is how a server says that it has no changes to tell: by the
// key of a message, and not by the fault's type.
func trackingFault(because types.MethodFault, refusal *store.Refusal, key string) types.BaseMethodFault {
	because.FaultMessage = []types.LocalizableMessage{{Key: "vim.hostd.vmsvc.cbt." + key, Message: refusal.Why}}
	return &types.FileFault{VimFault: types.VimFault{MethodFault: because}, File: refusal.Subject}
}

func soapFault(err error) *soap.Fault { return simulator.Fault(err.Error(), faultOf(err)) }

func localized(err error) *types.LocalizedMethodFault {
	return &types.LocalizedMethodFault{Fault: faultOf(err), LocalizedMessage: err.Error()}
}

// FaultFor makes the fault that a rule names, with the rule's properties.
func FaultFor(rule *rules.Rule) (types.BaseMethodFault, error) {
	kind, err := faultType(rule.Fault)
	if err != nil {
		return nil, err
	}
	fault := reflect.New(kind).Interface().(types.BaseMethodFault)
	if len(rule.Fields) > 0 {
		if err := json.Unmarshal(rule.Fields, fault); err != nil {
			return nil, fmt.Errorf("read the properties of %s: %w", rule.Fault, err)
		}
	}
	if rule.Message != "" {
		fault.GetMethodFault().FaultCause = &types.LocalizedMethodFault{
			Fault: &types.SystemErrorFault{Reason: rule.Message}, LocalizedMessage: rule.Message,
		}
	}
	return fault, nil
}

var methodFault = reflect.TypeFor[types.BaseMethodFault]()

func faultType(name string) (reflect.Type, error) {
	lookup := types.TypeFunc()
	for _, prefix := range []string{"", "vslm:", "vsan:"} {
		kind, ok := lookup(prefix + name)
		if ok && reflect.PointerTo(kind).Implements(methodFault) {
			return kind, nil
		}
	}
	return nil, fmt.Errorf("there is no fault called %q", name)
}
