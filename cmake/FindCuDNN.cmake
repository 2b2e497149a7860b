# Finds cuDNN 9 (cudnn.h, libcudnn) beside CUDA or in the system; CUDNN_ROOT names another folder.
# Makes CuDNN::cudnn.
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDNN_ROOT} $ENV{CUDNN_ROOT} ${CUDAToolkit_INCLUDE_DIRS}
          PATH_SUFFIXES include)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDNN_ROOT} $ENV{CUDNN_ROOT} ${CUDAToolkit_LIBRARY_DIR}
             PATH_SUFFIXES lib lib64)
foreach(header cudnn_version.h cudnn_version_v9.h)
    if(CUDNN_INCLUDE_DIR AND EXISTS ${CUDNN_INCLUDE_DIR}/${header} AND NOT CuDNN_VERSION)
        file(STRINGS ${CUDNN_INCLUDE_DIR}/${header} lines REGEX "^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) +[0-9]+")
        string(REGEX REPLACE "[^0-9;]" "" lines "${lines}")
        string(REPLACE ";" "." CuDNN_VERSION "${lines}")
    endif()
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CuDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR VERSION_VAR CuDNN_VERSION)
if(CuDNN_FOUND AND NOT TARGET CuDNN::cudnn)
    add_library(CuDNN::cudnn UNKNOWN IMPORTED)
    set_target_properties(CuDNN::cudnn PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY}
                                                  INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
