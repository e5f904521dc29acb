// Files, their datasets and attributes. Moving elements: hdf5_transfer.cpp.

#include "minwm/core/hdf5.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "hdf5_file.h"

namespace minwm::hdf5 {
namespace {

#if H5_VERSION_GE(1, 12, 0)
using ObjectInfo = H5O_info2_t;
constexpr auto kVisitObjects = &H5Ovisit3;
#else
using ObjectInfo = H5O_info_t;
constexpr auto kVisitObjects = &H5Ovisit2;
#endif

const char* type_name(at::ScalarType type) {
  return c10::toString(type);
}

constexpr at::ScalarType kStored[] = {at::kFloat, at::kDouble, at::kLong,    at::kInt,
                                      at::kByte,  at::kHalf,   at::kBFloat16};

}  // namespace

Handle File::Impl::access_properties(const void* mpi_comm) const {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
  // Whole rows and whole datasets only: caches would copy, and delay the error of a full disk
  // until closing.
  H5Pset_cache(access, 0, 0, 0, 0);
  H5Pset_sieve_buf_size(access, 0);
  if (mpi_comm != nullptr) {
    check(H5Pset_fapl_mpio(access, *static_cast<const MPI_Comm*>(mpi_comm), MPI_INFO_NULL),
          "MPI-IO");
    // Not H5Pset_all_coll_metadata_ops: ranks read and write different rows independently.
    H5Pset_coll_metadata_write(access, true);
  }
#if H5_VERSION_GE(1, 10, 7)
  // Some file systems have no locks, and who writes in place locks for itself.
  H5Pset_file_locking(access, false, true);
#endif
  return access;
}

void File::Impl::open(Mode mode, const void* mpi_comm) {
  const Lock lock;
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  parallel = mpi_comm != nullptr;
  const Handle access = access_properties(mpi_comm);
  const std::string name = path.string();
  if (mode == Mode::kCreate) {
    if (path.has_parent_path()) {
      std::error_code ignored;  // creating the file names the reason
      std::filesystem::create_directories(path.parent_path(), ignored);
    }
    file = check(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), "cannot be created");
    return;
  }
  require(std::filesystem::exists(path), "{}: does not exist", name);
  const unsigned flags = mode == Mode::kReadOnly ? H5F_ACC_RDONLY : H5F_ACC_RDWR;
  file = H5Fopen(name.c_str(), flags, access);
  if (file < 0) {
    const std::string why = reason();
    H5Eclear2(H5E_DEFAULT);
    fail("{}: not a readable HDF5 file (damaged or truncated?): {}", name, why);
  }
}

void File::Impl::close() {
  const hid_t closing = std::exchange(file, -1);
  if (closing >= 0) {
    check(H5Fclose(closing), "cannot be closed");
  }
}

Handle File::Impl::dataset(const std::string& name) const {
  return {check(H5Dopen2(file, name.c_str(), H5P_DEFAULT), "dataset '" + name + "'"), H5Dclose};
}
Handle File::Impl::object(const std::string& name) const {
  return {check(H5Oopen(file, name.c_str(), H5P_DEFAULT), "object '" + name + "'"), H5Oclose};
}
std::vector<int64_t> File::Impl::shape(const std::string& name) const {
  const Handle data = dataset(name);
  const Handle space(H5Dget_space(data), H5Sclose);
  std::vector<hsize_t> dims(static_cast<size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  return {dims.begin(), dims.end()};
}

File::File(const std::filesystem::path& path, Mode mode) : File(path, mode, nullptr) {}
File::File(const std::filesystem::path& path, Mode mode, const void* mpi_comm)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->open(mode, mpi_comm);
}
File::File(File&&) noexcept = default;
File::~File() {
  if (!impl_ || impl_->file < 0) {
    return;
  }
  if (impl_->left_open ||
      (impl_->parallel && std::uncaught_exceptions() > impl_->exceptions_at_open)) {
    return;
  }
  const Lock lock;
  H5Fclose(impl_->file);
  H5Eclear2(H5E_DEFAULT);
}

void File::close() {
  const Lock lock;
  impl_->close();
}

void File::leave_open() {
  impl_->left_open = true;
}

const std::filesystem::path& File::path() const {
  return impl_->path;
}

bool File::contains(const std::string& name) const {
  const Lock lock;
  // Every parent has to exist before the link itself may be asked for.
  for (size_t slash = name.find('/', 1); slash != std::string::npos;
       slash = name.find('/', slash + 1)) {
    if (H5Lexists(impl_->file, name.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) {
      return false;
    }
  }
  return H5Lexists(impl_->file, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> File::datasets() const {
  const Lock lock;
  std::vector<std::string> names;
  impl_->check(kVisitObjects(
                   impl_->file, H5_INDEX_NAME, H5_ITER_NATIVE,
                   [](hid_t, const char* name, const ObjectInfo* info, void* out) -> herr_t {
                     if (info->type == H5O_TYPE_DATASET) {
                       static_cast<std::vector<std::string>*>(out)->emplace_back(name);
                     }
                     return 0;
                   },
                   &names, H5O_INFO_BASIC),
               "cannot be listed");
  std::sort(names.begin(), names.end());
  return names;
}

void File::create_dataset(const std::string& name, at::ScalarType type,
                          const std::vector<int64_t>& shape, int64_t chunk_rows) {
  const Lock lock;
  std::vector<hsize_t> dims(shape.begin(), shape.end());
  const Handle space(dims.empty()
                         ? H5Screate(H5S_SCALAR)
                         : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                     H5Sclose);
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links, 1);
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);  // else everything is written twice
  if (chunk_rows > 0) {
    dims[0] = static_cast<hsize_t>(chunk_rows);
    impl_->check(H5Pset_chunk(creation, static_cast<int>(dims.size()), dims.data()),
                 "chunks of '" + name + "'");
  }
  const Handle data(impl_->check(H5Dcreate2(impl_->file, name.c_str(), native_type(type), space,
                                            links, creation, H5P_DEFAULT),
                                 "cannot create '" + name + "'"),
                    H5Dclose);
  write_attribute(name, "dtype", type_name(type));
}

std::vector<int64_t> File::shape(const std::string& name) const {
  const Lock lock;
  return impl_->shape(name);
}

at::ScalarType File::type(const std::string& name) const {
  const std::string stored = read_string(name, "dtype");
  for (const auto type : kStored) {
    if (stored == type_name(type)) {
      return type;
    }
  }
  fail("{}: dataset '{}' has unknown type '{}'", impl_->path.string(), name, stored);
}

void File::write_attribute(const std::string& object, const std::string& key,
                           const std::string& value) {
  const Lock lock;
  const Handle owner = impl_->object(object);
  if (H5Aexists(owner, key.c_str()) > 0) {
    H5Adelete(owner, key.c_str());
  }
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<size_t>(value.size(), 1));
  H5Tset_cset(type, H5T_CSET_UTF8);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(
      impl_->check(H5Acreate2(owner, key.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                   "attribute '" + key + "'"),
      H5Aclose);
  impl_->check(H5Awrite(attribute, type, value.empty() ? "\0" : value.data()),
               "attribute '" + key + "'");
}

void File::write_attribute(const std::string& object, const std::string& key, int64_t value) {
  const Lock lock;
  const Handle owner = impl_->object(object);
  if (H5Aexists(owner, key.c_str()) > 0) {
    const Handle present(H5Aopen(owner, key.c_str(), H5P_DEFAULT), H5Aclose);
    const Handle type(H5Aget_type(present), H5Tclose);
    if (H5Tequal(type, H5T_NATIVE_INT64) > 0) {
      // In place: a value that changes needs no space.
      impl_->check(H5Awrite(present, H5T_NATIVE_INT64, &value), "attribute '" + key + "'");
      return;
    }
    H5Adelete(owner, key.c_str());
  }
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(impl_->check(H5Acreate2(owner, key.c_str(), H5T_NATIVE_INT64, space,
                                                 H5P_DEFAULT, H5P_DEFAULT),
                                      "attribute '" + key + "'"),
                         H5Aclose);
  impl_->check(H5Awrite(attribute, H5T_NATIVE_INT64, &value), "attribute '" + key + "'");
}

bool File::has_attribute(const std::string& object, const std::string& key) const {
  const Lock lock;
  const Handle owner = impl_->object(object);
  return H5Aexists(owner, key.c_str()) > 0;
}

std::string File::read_string(const std::string& object, const std::string& key) const {
  const Lock lock;
  const Handle owner = impl_->object(object);
  require(H5Aexists(owner, key.c_str()) > 0, "{}: '{}' lacks the attribute '{}'",
          impl_->path.string(), object, key);
  const Handle attribute(H5Aopen(owner, key.c_str(), H5P_DEFAULT), H5Aclose);
  const Handle type(H5Aget_type(attribute), H5Tclose);
  require(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0,
          "{}: attribute '{}' of '{}' is no text", impl_->path.string(), key, object);
  std::string value(H5Tget_size(type), '\0');
  impl_->check(H5Aread(attribute, type, value.data()), "attribute '" + key + "'");
  value.resize(std::min(value.size(), value.find('\0')));
  return value;
}

int64_t File::read_integer(const std::string& object, const std::string& key) const {
  const Lock lock;
  const Handle owner = impl_->object(object);
  require(H5Aexists(owner, key.c_str()) > 0, "{}: '{}' lacks the attribute '{}'",
          impl_->path.string(), object, key);
  const Handle attribute(H5Aopen(owner, key.c_str(), H5P_DEFAULT), H5Aclose);
  int64_t value = 0;
  impl_->check(H5Aread(attribute, H5T_NATIVE_INT64, &value), "attribute '" + key + "'");
  return value;
}

void File::flush() {
  const Lock lock;
  impl_->check(H5Fflush(impl_->file, H5F_SCOPE_GLOBAL), "cannot be flushed");
}

}  // namespace minwm::hdf5
