package wire

import (
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
)

// HostRight is the right that a call of a method of the host's services takes; false when there
// is no such method.
func HostRight(method string) (sdk.HostRight, bool) {
	switch method {
	case proto.Host_Submit_FullMethodName:
		return sdk.MaySubmit, true
	case proto.Host_Mechanisms_FullMethodName, proto.Host_Authenticate_FullMethodName:
		return sdk.MayAuthenticate, true
	case proto.Host_Lookup_FullMethodName:
		return sdk.MayLookup, true
	case proto.Host_GetData_FullMethodName, proto.Host_PutData_FullMethodName, proto.Host_ListData_FullMethodName:
		return sdk.MayKeepData, true
	case proto.Host_Certificate_FullMethodName:
		return sdk.MayUseCertificate, true
	case proto.Host_GetState_FullMethodName, proto.Host_PutState_FullMethodName, proto.Host_CountState_FullMethodName:
		return sdk.MayKeepState, true
	case proto.Host_Log_FullMethodName:
		return sdk.MayLog, true
	case proto.Host_Count_FullMethodName:
		return sdk.MayCount, true
	case proto.Host_Remembered_FullMethodName:
		return sdk.MayAskRemembered, true
	case proto.Host_Reinjected_FullMethodName:
		return sdk.MayTakeReinjected, true
	case proto.Host_Folders_FullMethodName:
		return sdk.MayAskFolders, true
	}
	return 0, false
}
